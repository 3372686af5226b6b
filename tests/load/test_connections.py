"""Hostile connections: slow, huge, idle by the thousand, half closed, or no protocol at all.

Other clients get responses meanwhile, and everything that the connections held is freed afterwards.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import grpc
import pytest

from benchmarks.load.http_connection import post_request
from benchmarks.stand_in.script import Script
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.gauges import wait_at_rest
from tests.load.growth import descriptors, resident_bytes
from tests.load.http2 import GREETING
from tests.load.neighbors import ask_as_another
from tests.load.payload import numbered
from tests.load.probes import Probes
from tests.load.stand_in import stand_in
from tests.waiting import wait_until

SCRIPT: Final = Script(batch_s=0.002, position_s=1e-6)
RECEIPT_S: Final = 1
"""`rest.body_timeout_s`, for heads and for bodies."""
PATIENCE_S: Final = 15
NEIGHBORS: Final = 40
SPARE: Final = 8
"""Descriptors that may come for other reasons, such as probes."""
HEAD: Final = b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
SLOW_BODY: Final = HEAD + b"content-length: 1000\r\n\r\n{"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with stand_in(tmp_path_factory.mktemp("connections"), SCRIPT, f"--rest.body_timeout_s={RECEIPT_S}") as started:
        yield started


@contextmanager
def unharmed(process: ServiceProcess) -> Iterator[None]:
    """Checks that probes and neighbors get responses meanwhile, and that nothing is held afterwards."""
    wait_at_rest(process)
    before = descriptors(process)
    with Probes(process) as probes:
        yield
        asyncio.run(ask_as_another(process, NEIGHBORS))
    assert probes.failures == []
    wait_until(lambda: descriptors(process) <= before + SPARE, PATIENCE_S)
    wait_at_rest(process)
    assert process.complaints == []


@pytest.mark.parametrize(("begun", "ends"), [(SLOW_BODY, b"HTTP/1.1 408 "), (HEAD, b"")], ids=["body", "head"])
@pytest.mark.parametrize("trickles", [False, True], ids=["nothing more", "a byte at a time"])
def test_slow_requests_end(begun: bytes, ends: bytes, trickles: bool, process: ServiceProcess, report: Report) -> None:
    """A slow body gets 408, a slow head the end of the connection; further bytes gain no time."""
    with unharmed(process), ExitStack() as stack:
        slow = [stack.enter_context(_connected(process.rest_port)) for _ in range(20)]
        began = time.monotonic()
        for connection in slow:
            connection.sendall(begun)
        for connection in slow:
            assert _read_to_the_end(connection, trickle=b"x" if trickles else b"").startswith(ends)
        took_s = time.monotonic() - began
    report(f"ended after {took_s:.1f} s, of {RECEIPT_S} s allowed")


def test_huge_heads_are_rejected(process: ServiceProcess) -> None:
    with unharmed(process), ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(_connected(process.rest_port))
            connection.sendall(HEAD)
            answer = _read_to_the_end(connection, trickle=b"x-filler: " + b"a" * 8000 + b"\r\n")
            assert answer[:13] in {b"HTTP/1.1 431 ", b""}


def test_huge_metadata_is_rejected(process: ServiceProcess, report: Report) -> None:
    with unharmed(process), grpc.insecure_channel(process.target) as channel:
        call = EncoderServiceStub(channel).Encode.future(
            pb.EncodeRequest(), timeout=PATIENCE_S, metadata=(("x-filler", "a" * 8000),) * 100
        )
        code = call.code()
    report(f"{code.name} for 800 kB of metadata")
    assert code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INVALID_ARGUMENT}


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize("idle", [pytest.param(500, id="short"), pytest.param(4000, id="long", marks=pytest.mark.long)])
def test_idle_connections_cost_little(idle: int, transport: str, process: ServiceProcess, report: Report) -> None:
    """REST's send nothing and are closed; gRPC's send nothing after their greeting."""
    port = process.rest_port if transport == "rest" else process.grpc_port
    before = resident_bytes(process)
    with unharmed(process), ExitStack() as stack:
        connections = [stack.enter_context(_connected(port)) for _ in range(idle)]
        if transport == "grpc":
            for connection in connections:
                connection.sendall(GREETING)
        wait_until(lambda: descriptors(process) > idle // 2)
        grown = resident_bytes(process) - before
        asyncio.run(ask_as_another(process, NEIGHBORS))
    report(f"{idle} idle connections take {grown / 1e6:.0f} MB; neighbors and probes served, descriptors back")


def test_half_closed_sockets_do_no_harm(process: ServiceProcess) -> None:
    """Clients close their side before a head, within a body or after a whole request."""
    whole = numbered(1, 16).rest()
    request = post_request(whole)
    with unharmed(process), ExitStack() as stack:
        for port in (process.rest_port, process.grpc_port):
            for begun in (b"", HEAD, SLOW_BODY, request, GREETING, GREETING[:10]):
                for _ in range(20):
                    connection = stack.enter_context(_connected(port))
                    connection.sendall(begun)
                    connection.shutdown(socket.SHUT_WR)


def test_noise_does_no_harm(process: ServiceProcess) -> None:
    dice = random.Random(0)
    with unharmed(process), ExitStack() as stack:
        for port in (process.rest_port, process.grpc_port):
            for begun in (b"", HEAD, GREETING):
                for _ in range(20):
                    connection = stack.enter_context(_connected(port))
                    connection.sendall(begun + dice.randbytes(300))


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def _read_to_the_end(connection: socket.socket, *, trickle: bytes) -> bytes:
    """Returns everything received until the other side closes; sends `trickle` meanwhile."""
    received = b""
    deadline = time.monotonic() + PATIENCE_S
    connection.settimeout(0.05 if trickle else PATIENCE_S)
    while time.monotonic() < deadline:
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            piece = None
        except ConnectionResetError:
            return received
        if piece == b"":
            return received
        received += piece or b""
        try:
            connection.sendall(trickle)
        except OSError:  # closed: what came before is still to be read
            trickle = b""
    raise AssertionError(f"not ended within {PATIENCE_S} s")
