"""Connections that mean no good: slow, huge, idle by the thousand, half closed, or no protocol at all.

While they last, others are answered; when they are over, what they held is free again.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import grpc
import pytest

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.integration.process import ServiceProcess, wait_until
from tests.load.callers import OK, Endpoint
from tests.load.conftest import Report
from tests.load.gauges import wait_at_rest
from tests.load.growth import resident_bytes
from tests.load.payload import numbered
from tests.load.probes import Probes
from tests.load.script import Script
from tests.load.stand_in import stand_in

SCRIPT: Final = Script(batch_s=0.002, position_s=1e-6)
RECEIPT_S: Final = 1
"""`rest.body_timeout_s`, for heads and for bodies."""
PATIENCE_S: Final = 15
NEIGHBOURS: Final = 40
SPARE: Final = 8
"""Descriptors that may come and go for other reasons, such as the probes'."""
HEAD: Final = b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
SLOW_BODY: Final = HEAD + b"content-length: 1000\r\n\r\n{"
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # and empty settings


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with stand_in(tmp_path_factory.mktemp("connections"), SCRIPT, f"--rest.body_timeout_s={RECEIPT_S}") as started:
        yield started


@contextmanager
def unharmed(process: ServiceProcess) -> Iterator[None]:
    """Fails unless probes and neighbours are answered meanwhile, and nothing is held afterwards."""
    wait_at_rest(process)
    before = descriptors(process)
    with Probes(process) as probes:
        yield
        asyncio.run(_ask_as_a_neighbour(process))
    assert probes.failures == []
    wait_until(lambda: descriptors(process) <= before + SPARE, PATIENCE_S)
    wait_at_rest(process)
    assert process.complaints == []


def descriptors(process: ServiceProcess) -> int:
    """How many files and sockets the process has open."""
    return sum(1 for _ in Path(f"/proc/{process.popen.pid}/fd").iterdir())


async def _ask_as_a_neighbour(process: ServiceProcess) -> None:
    for endpoint in Endpoint.both(process.rest_port, process.grpc_port):
        caller = endpoint.caller()
        answers = await asyncio.gather(*(caller.ask(numbered(i, 16)) for i in range(NEIGHBOURS)))
        await caller.close()
        assert {answer.code for answer in answers} == {OK}


@pytest.mark.parametrize(("begun", "ends"), [(SLOW_BODY, b"HTTP/1.1 408 "), (HEAD, b"")], ids=["body", "head"])
@pytest.mark.parametrize("trickles", [False, True], ids=["nothing more", "a byte at a time"])
def test_what_comes_too_slowly_is_given_up(
    begun: bytes, ends: bytes, trickles: bool, process: ServiceProcess, report: Report
) -> None:
    """A body is answered with 408, a head with the end of the connection; bytes that keep coming buy no time."""
    with unharmed(process), ExitStack() as stack:
        slow = [stack.enter_context(_connected(process.rest_port)) for _ in range(20)]
        began = time.monotonic()
        for connection in slow:
            connection.sendall(begun)
        for connection in slow:
            assert _read_to_the_end(connection, trickle=b"x" if trickles else b"").startswith(ends)
        took_s = time.monotonic() - began
    report(f"given up after {took_s:.1f} s, of {RECEIPT_S} s allowed")


def test_huge_heads_are_refused(process: ServiceProcess) -> None:
    with unharmed(process), ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(_connected(process.rest_port))
            connection.sendall(HEAD)
            answer = _read_to_the_end(connection, trickle=b"x-filler: " + b"a" * 8000 + b"\r\n")
            assert answer[:13] in {b"HTTP/1.1 431 ", b""}


def test_huge_metadata_is_refused(process: ServiceProcess, report: Report) -> None:
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
    """REST's never send anything and are given up; gRPC's have greeted and say no more."""
    port = process.rest_port if transport == "rest" else process.grpc_port
    before = resident_bytes(process)
    with unharmed(process), ExitStack() as stack:
        connections = [stack.enter_context(_connected(port)) for _ in range(idle)]
        if transport == "grpc":
            for connection in connections:
                connection.sendall(PREFACE)
        wait_until(lambda: descriptors(process) > idle // 2)
        grown = resident_bytes(process) - before
        asyncio.run(_ask_as_a_neighbour(process))
    report(f"{idle} idle connections take {grown / 1e6:.0f} MB; neighbours and probes answered, descriptors back")


def test_half_closed_sockets_harm_nobody(process: ServiceProcess) -> None:
    """Callers who say that they are done: before a head, within a body, after a whole request."""
    whole = numbered(1, 16).rest()
    request = HEAD + f"content-length: {len(whole)}\r\n\r\n".encode() + whole
    with unharmed(process), ExitStack() as stack:
        for port in (process.rest_port, process.grpc_port):
            for begun in (b"", HEAD, SLOW_BODY, request, PREFACE, PREFACE[:10]):
                for _ in range(20):
                    connection = stack.enter_context(_connected(port))
                    connection.sendall(begun)
                    connection.shutdown(socket.SHUT_WR)


def test_noise_harms_nobody(process: ServiceProcess) -> None:
    dice = random.Random(0)
    with unharmed(process), ExitStack() as stack:
        for port in (process.rest_port, process.grpc_port):
            for begun in (b"", HEAD, PREFACE):
                for _ in range(20):
                    connection = stack.enter_context(_connected(port))
                    connection.sendall(begun + dice.randbytes(300))


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def _read_to_the_end(connection: socket.socket, *, trickle: bytes) -> bytes:
    """What comes until the other side closes; meanwhile more is sent, if there is more."""
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
    raise AssertionError(f"not given up within {PATIENCE_S} s")
