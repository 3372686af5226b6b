"""What the garbage collector need not look at, and when it must all the same.

What is loaded at start stays, so the collector is told to pass over it: walking through it takes tens of milliseconds
in which requests wait. But what it passes over it never frees, and models have cycles. So when a model goes,
everything is looked at once.
"""

from __future__ import annotations

import gc


def keep() -> None:
    """Has the collector pass over all there is now."""
    gc.collect()
    gc.freeze()


def reclaim() -> None:
    """Frees what nobody refers to any more, wherever it came from."""
    gc.unfreeze()
    keep()
