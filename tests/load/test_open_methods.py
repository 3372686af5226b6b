"""Messages without an end, to methods that need no key: they are bounded, and probes and other clients are served."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from benchmarks.stand_in.script import Script
from electra_serve.api.grpc.server import MAX_OPEN_RECEIVED
from electra_serve.api.grpc.servicer import SERVICE_NAME
from electra_serve.server.lifecycle import EXIT_OK
from electra_serve.settings.schema import GrpcSettings
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.growth import resident_bytes
from tests.load.http2 import Http2Client, message
from tests.load.neighbors import ask_as_another
from tests.load.probes import Probes
from tests.load.stand_in import stand_in
from tests.load.worst_inputs import GROUPS

SCRIPT: Final = Script(batch_s=0.002, position_s=1e-7)
MESSAGE_BYTES: Final = GrpcSettings().max_request_bytes
MAX_GROWTH_BYTES: Final = 150_000_000
SOURCES: Final = ("127.0.0.3", "127.0.0.1")
"""Another address than that of the probes, and the same."""
CALLS_PER_CONNECTION: Final = 12
RECEIVED: Final = ("Health/Check", "Health/Watch", "ServerReflection/ServerReflectionInfo")
PATHS: Final = {
    "Health/Check": "/grpc.health.v1.Health/Check",
    "Health/Watch": "/grpc.health.v1.Health/Watch",
    "ServerReflection/ServerReflectionInfo": "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "an unknown method": f"/{SERVICE_NAME}/Unknown",
    "an unknown service": "/unknown.Service/Check",
}
NEIGHBORS: Final = 10
PATIENCE_S: Final = 5.0
READ_AHEAD_BYTES: Final = 10_000_000
"""Of the message that is being received, and of what the process has not given back to the system."""
MAX_CONNECTION_BYTES: Final = 150_000


@pytest.mark.parametrize("calls", [pytest.param(48, id="short"), pytest.param(600, id="long", marks=pytest.mark.long)])
def test_messages_that_never_end(calls: int, tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, SCRIPT) as process, ExitStack() as stack:
        before = resident_bytes(process)
        for name, path in PATHS.items():
            with Probes(process) as probes:
                clients = [
                    stack.enter_context(closing(Http2Client(process.grpc_port, source=SOURCES[number % 2])))
                    for number in range(calls // CALLS_PER_CONNECTION)
                ]
                for client in clients:
                    send_unfinished(client, path)
                check_clients(process)
            ended = sum(count_ended(client) for client in clients)
            grown = resident_bytes(process) - before
            report(
                f"{calls} messages without an end to {name}: {ended} ended, memory +{grown / 1e6:.0f} MB, "
                f"slowest probe {probes.slowest_s * 1e3:.0f} ms"
            )
            assert probes.failures == []
            assert ended >= calls - (MAX_OPEN_RECEIVED if name in RECEIVED else 0)
            assert grown <= MAX_GROWTH_BYTES
        process.terminate()
        began = time.monotonic()
        assert process.wait() == EXIT_OK
        report(f"exit 0 {time.monotonic() - began:.1f} s after SIGTERM")
        assert process.complaints == []


def send_unfinished(client: Http2Client, path: str) -> None:
    """Opens calls, and sends of each message as much as the server takes."""
    unfinished = message(bytes(MESSAGE_BYTES - 1024), length=MESSAGE_BYTES - 16)
    for call in range(CALLS_PER_CONNECTION):
        client.open_call(2 * call + 1, path)
        client.send(2 * call + 1, unfinished)


def count_ended(client: Http2Client) -> int:
    """Returns the number of calls that the server has ended."""
    while client.read(timeout_s=0.05):
        pass
    return len(client.ended)


def check_clients(process: ServiceProcess) -> None:
    """Checks that stock clients of health, reflection and the encoder get responses."""
    with grpc.insecure_channel(process.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # its type stub omits the methods
        request = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        assert health.Check(request, timeout=PATIENCE_S).status == health_pb2.HealthCheckResponse.SERVING
        assert next(health.Watch(request, timeout=PATIENCE_S)).status == health_pb2.HealthCheckResponse.SERVING
        assert SERVICE_NAME in ProtoReflectionDescriptorDatabase(channel).get_services()
    asyncio.run(ask_as_another(process, NEIGHBORS))


@pytest.mark.parametrize(
    "connections", [pytest.param(100, id="short"), pytest.param(1000, id="long", marks=pytest.mark.long)]
)
def test_a_connection_that_has_sent_a_large_message_costs_little(
    connections: int, tmp_path: Path, report: Report
) -> None:
    """gRPC reads ahead by as much as it has read before, and a connection keeps that buffer while it is open."""
    with stand_in(tmp_path, SCRIPT) as process, ExitStack() as stack:
        before = resident_bytes(process)
        for _ in range(connections):
            client = stack.enter_context(closing(Http2Client(process.grpc_port, source=SOURCES[0])))
            client.open_call(1, f"/{SERVICE_NAME}/Encode")
            client.send(1, message(GROUPS * (MESSAGE_BYTES // 4 - 16)), end=True)
            while not client.ended:
                assert client.read(PATIENCE_S)
        grown = resident_bytes(process) - before
        report(f"{connections} connections, each after a message of 4 MB: memory +{grown / 1e6:.0f} MB")
        assert grown <= READ_AHEAD_BYTES + connections * MAX_CONNECTION_BYTES
