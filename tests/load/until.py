"""Waits on an event loop for what another process does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import httpx

from tests.integration.process import ServiceProcess
from tests.load.gauges import gauge

POLL_S: Final = 0.005
PATIENCE_S: Final = 30.0


async def until(condition: Callable[[], bool]) -> None:
    """Returns when it holds; fails where that takes `PATIENCE_S`."""

    async def asked() -> bool:
        return condition()

    await _until(asked)


async def until_queued(process: ServiceProcess, sequences: int) -> None:
    """Returns when at least so many wait in the queue."""
    async with httpx.AsyncClient(base_url=process.url) as client:

        async def queued() -> bool:
            return gauge((await client.get("/metrics")).text, "electra_queued_sequences") >= sequences

        await _until(queued)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  # another process sets no event of ours
            await asyncio.sleep(POLL_S)
