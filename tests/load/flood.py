"""One request over many connections, again and again, from a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.load.clients import ENCODE_METHOD
from benchmarks.load.closed_loop import LoadPlan, Payload, background_load
from benchmarks.load.http_connection import post_request
from tests.integration.process import ServiceProcess

CONNECTIONS: Final = 64
METHODS: Final = {"rest": "", "grpc": ENCODE_METHOD, "health": "/grpc.health.v1.Health/Check"}


@contextmanager
def flood(
    process: ServiceProcess,
    transport: str,
    data: bytes,
    *,
    seconds: float,
    connections: int = CONNECTIONS,
    source: str = "",
    api_key: str = "",
) -> Iterator[Future[dict[str, Any]]]:
    """Sends the request for some seconds, which the context waits for.

    Args:
        process: Target.
        transport: `rest`, `grpc`, or `health` for gRPC's own method.
        data: A body or a message.
        seconds: Duration.
        connections: Number of connections, each with one request in flight.
        source: Address to connect from; REST only.
        api_key: The client's key; "" for none.

    Yields:
        The figures of `benchmarks.load.closed_loop.summarize`, known at the end.
    """
    rest = transport == "rest"
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    plan = LoadPlan(
        transport="rest" if rest else "grpc",
        port=process.rest_port if rest else process.grpc_port,
        clients=connections,
        connections=connections,
        warm_up_s=0.0,
        seconds=seconds,
        source=source,
        method=METHODS[transport],
        metadata=tuple(headers.items()),
    )
    with background_load(plan, [Payload(post_request(data, headers=headers) if rest else data)]) as figures:
        yield figures
