"""Frees the local variables that an error's traceback holds.

A traceback keeps a request's bytes and its parsed message in memory. Frameworks keep errors in reference cycles, which
are collected late.
"""

from __future__ import annotations

import traceback


def clear_frames(error: BaseException) -> None:
    """Clears the frames of an error and its causes, except those of functions that still run."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
