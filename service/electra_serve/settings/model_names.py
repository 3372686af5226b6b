"""Names that clients can put into a URL's path, a JSON body and a gRPC message, and get back unchanged.

URL parsers and proxies resolve `.` and `..` and merge empty segments, percent-encoded or not. Everything else that is
printable can be encoded: `org/model`, `a b?c#d%` and `模型` work on every route.
"""

from __future__ import annotations

from typing import Final

from pydantic_core import PydanticCustomError

MAX_NAME: Final = 128
"""Characters of a model's name, which every one of its metrics' series repeats."""
_UNADDRESSABLE: Final = frozenset({"", ".", ".."})


def check_model_name(name: str) -> str:
    """Returns `name` if clients can address a model by it.

    Raises:
        PydanticCustomError: They cannot.

    Example:
        >>> check_model_name("sentence-transformers/all-MiniLM-L6-v2")
        'sentence-transformers/all-MiniLM-L6-v2'
    """
    if not name.isprintable() or name != name.strip() or not 0 < len(name) <= MAX_NAME:
        raise PydanticCustomError(
            "model_name",
            f"must be 1 to {MAX_NAME} printable characters without a space at either end",
        )
    if not _UNADDRESSABLE.isdisjoint(name.split("/")):
        raise PydanticCustomError("model_name", "must have no part that is empty, . or .. between slashes")
    return name
