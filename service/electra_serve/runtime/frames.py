"""Frees what the frames of an error hold.

The traceback of an error holds the local variables of all functions that it passed through: a request's bytes and its
parsed message, for as long as the error lives. Frameworks keep errors in reference cycles, which are collected late.
"""

from __future__ import annotations

import traceback


def clear_frames(error: BaseException) -> None:
    """Clears the local variables in the traceback of an error and of its causes, except of functions that still run."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
