"""Reads single figures of `/metrics`, and whether the service has come to rest."""

from __future__ import annotations

import httpx

from tests.integration.process import ServiceProcess, wait_until

RESTING: tuple[str, ...] = (
    "electra_queued_sequences",
    "electra_queued_tokens",
    "electra_queue_oldest_wait_seconds",
    "electra_running_sequences",
)


def gauge(exposition: str, name: str) -> float:
    """The sum of a metric's series.

    Example:
        >>> gauge('up 1.0\\nin_flight{transport="rest"} 2.0\\nin_flight{transport="grpc"} 1.0\\n', "in_flight")
        3.0
    """
    lines = (line for line in exposition.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def scrape(process: ServiceProcess) -> str:
    """`/metrics`."""
    return httpx.get(f"{process.url}/metrics", timeout=30).text


def wait_at_rest(process: ServiceProcess, timeout_s: float = 30.0) -> None:
    """Waits until nothing waits, runs or is in transit, and no request but the scrape's own is in flight."""

    def at_rest() -> bool:
        text = scrape(process)
        return all(gauge(text, name) == 0 for name in (*RESTING, "electra_requests_in_flight", "electra_transit_bytes"))

    wait_until(at_rest, timeout_s)
