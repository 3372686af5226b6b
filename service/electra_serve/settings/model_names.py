"""Names that stay unchanged in a URL's path, a JSON body and a gRPC message.

URL parsers and proxies resolve `.` and `..` and merge empty segments, percent-encoded or not. Everything else that is
printable can be encoded: `org/model`, `a b?c#d%` and `模型` work on every route.
"""

from __future__ import annotations

from typing import Final

from pydantic_core import PydanticCustomError

MAX_NAME: Final = 128  # most characters of a name, which each metric series of the model repeats
_UNADDRESSABLE: Final = frozenset({"", ".", ".."})


def check_model_name(name: str) -> str:
    """Returns `name` if clients can address a model by it; else raises `PydanticCustomError`.

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
