"""Server of ELECTRA encoders over REST and gRPC, and its typed client.

The client's classes are imported at first use, so that importing the package imports no transport.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["AsyncElectraClient", "AsyncGrpcElectraClient", "ElectraClient", "GrpcElectraClient", "__version__"]

if TYPE_CHECKING:
    from electra_serve.client import AsyncElectraClient, AsyncGrpcElectraClient, ElectraClient, GrpcElectraClient
else:  # a type checker that saw `__getattr__` would accept every name

    def __getattr__(name: str) -> object:
        """Imports a public class of the client (PEP 562)."""
        if name in __all__:
            return getattr(import_module("electra_serve.client"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Includes the client's classes before they are imported."""
    return sorted({*globals(), *__all__})
