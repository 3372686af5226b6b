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


async def until_gauge(process: ServiceProcess, name: str, least: float) -> None:
    """Returns when a metric is at least so much."""
    async with httpx.AsyncClient(base_url=process.url) as client:

        async def reached() -> bool:
            return gauge((await client.get("/metrics")).text, name) >= least

        await _until(reached)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  # another process sets no event of ours
            await asyncio.sleep(POLL_S)
