"""Reads single figures of `/metrics`, and waits for them."""

from __future__ import annotations

import asyncio

import httpx

from tests.integration.process import ServiceProcess
from tests.waiting import LIMIT_S, SLOW_POLL_S, wait_until

RESTING: tuple[str, ...] = (
    "electra_queued_sequences",
    "electra_queued_tokens",
    "electra_queue_oldest_wait_seconds",
    "electra_running_sequences",
)


def gauge(exposition: str, name: str) -> float:
    """Returns the sum of a metric's series.

    Example:
        >>> gauge('up 1.0\\nin_flight{transport="rest"} 2.0\\nin_flight{transport="grpc"} 1.0\\n', "in_flight")
        3.0
    """
    lines = (line for line in exposition.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def scrape(process: ServiceProcess) -> str:
    """Returns `/metrics`."""
    return httpx.get(f"{process.url}/metrics", timeout=30).text


def wait_at_rest(process: ServiceProcess) -> None:
    """Waits until nothing is queued, running or in transit, and no request except the scrape is in flight."""

    def at_rest() -> bool:
        text = scrape(process)
        return all(gauge(text, name) == 0 for name in (*RESTING, "electra_requests_in_flight", "electra_transit_bytes"))

    wait_until(at_rest)


async def until_gauge(process: ServiceProcess, name: str, least: float) -> None:
    """Waits on the event loop until a metric is at least `least`."""
    async with asyncio.timeout(LIMIT_S), httpx.AsyncClient(base_url=process.url) as client:
        while gauge((await client.get("/metrics")).text, name) < least:  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(SLOW_POLL_S / 4)
