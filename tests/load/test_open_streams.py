"""Open streams that need no key: watches of health and reflection are bounded, cost nothing and delay no shutdown."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from benchmarks.load.closed_loop import cpu_seconds
from benchmarks.stand_in.script import Script
from electra_serve.api.grpc.stream_slots import MAX_PER_ADDRESS, MAX_PER_CONNECTION, MAX_STREAMS
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.growth import resident_bytes
from tests.load.stand_in import stand_in
from tests.waiting import until

MOST_GROWTH_BYTES: Final = 400e6
QUIET_S: Final = 2.0
REJECTED: Final = "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("connections", "watches"),
    [pytest.param(20, 2_000, id="short"), pytest.param(20, 20_000, id="long", marks=pytest.mark.long)],
)
async def test_watches_are_bounded_and_cost_nothing_while_nothing_changes(
    connections: int, watches: int, tmp_path: Path, report: Report
) -> None:
    allowed = min(connections * MAX_PER_CONNECTION, MAX_PER_ADDRESS, MAX_STREAMS)
    with stand_in(tmp_path, Script()) as process:
        before = resident_bytes(process)
        async with AsyncExitStack() as stack:
            statuses: Counter[str] = Counter()
            channels = [await stack.enter_async_context(connection(process)) for _ in range(connections)]
            watching = [asyncio.create_task(watch(channels[i % connections], statuses)) for i in range(watches)]
            await until(lambda: statuses.total() == watches)
            assert statuses == {"SERVING": allowed, REJECTED: watches - allowed}
            grown = resident_bytes(process) - before
            assert grown < MOST_GROWTH_BYTES
            used = cpu_seconds(process.popen.pid)
            await asyncio.sleep(QUIET_S)
            busy = (cpu_seconds(process.popen.pid) - used) / QUIET_S
            report.promise(busy < 0.1, "watches take no CPU while nothing changes")
            process.terminate()
            assert await asyncio.to_thread(process.wait) == 0
            await asyncio.gather(*watching)
        assert statuses["NOT_SERVING"] == allowed
    report(
        f"of {watches} watches {allowed} held, the others rejected: +{grown / 1e6:.0f} MB, "
        f"{busy * 100:.1f} % of a core while nothing changes; all {allowed} notified of the drain"
    )


async def test_an_open_reflection_stream_delays_no_shutdown(tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, Script()) as process:
        async with connection(process) as channel:
            method: grpc.aio.StreamStreamMultiCallable[
                reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
            ] = channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                reflection_pb2.ServerReflectionRequest.SerializeToString,
                reflection_pb2.ServerReflectionResponse.FromString,
            )
            call = method()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert isinstance(await call.read(), reflection_pb2.ServerReflectionResponse)
            process.terminate()
            began = time.monotonic()
            assert await asyncio.to_thread(process.wait) == 0
    report(f"exit 0 {time.monotonic() - began:.1f} s after SIGTERM")


def connection(process: ServiceProcess) -> grpc.aio.Channel:
    """A connection of its own."""
    return grpc.aio.insecure_channel(process.target, [("grpc.use_local_subchannel_pool", 1)])


async def watch(channel: grpc.aio.Channel, statuses: Counter[str]) -> None:
    """Counts each status that a watch reports, and the code with which it is rejected."""
    method: grpc.aio.UnaryStreamMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    method = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    try:
        async for response in method(health_pb2.HealthCheckRequest()):
            statuses[health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)] += 1
    except grpc.aio.AioRpcError as error:
        statuses[error.code().name if "may have at most" in str(error.details()) else "unexplained"] += 1
