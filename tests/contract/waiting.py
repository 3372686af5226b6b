"""Waiting for what another task, thread or socket brings about, never longer than a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

DEADLINE_S: Final = 10.0
POLL_S: Final = 0.001


async def until(condition: Callable[[], bool]) -> None:
    """Waits until `condition` holds; fails where that takes `DEADLINE_S`."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for knows of no event
            await asyncio.sleep(POLL_S)
