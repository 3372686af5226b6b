"""Waits for another task, thread or process, and never longer than a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

LIMIT_S: Final = 60.0
"""Long enough on a machine that is busy with other things."""
POLL_S: Final = 0.001
SLOW_POLL_S: Final = 0.02
"""Interval for conditions that query another process."""


async def until(condition: Callable[[], bool], timeout_s: float = LIMIT_S) -> None:
    """Waits on the event loop until `condition` holds; raises `TimeoutError` after the limit."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(POLL_S)


def wait_until(condition: Callable[[], bool], timeout_s: float = LIMIT_S) -> None:
    """Blocks the thread until `condition` holds; fails after the limit."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        time.sleep(SLOW_POLL_S)
