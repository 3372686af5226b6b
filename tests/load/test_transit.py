"""Bytes in transit: messages that never end and responses that are not read, from one client.

The process stays within its budget, other clients get responses meanwhile, and SIGTERM ends it as usual.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from benchmarks.load.http_connection import post_request
from benchmarks.stand_in.script import Script
from electra_serve.api.grpc.servicer import SERVICE_NAME
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers
from electra_serve.server.lifecycle import EXIT_OK
from electra_serve.serving.transit_budget import RECLAIM_AFTER_S
from electra_serve.settings.schema import GrpcSettings, RestSettings, TransitSettings
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape
from tests.load.growth import resident_bytes
from tests.load.http2 import Http2Client, message
from tests.load.neighbors import ask_as_another
from tests.load.stand_in import stand_in
from tests.waiting import wait_until

SCRIPT: Final = Script(batch_s=0.002, position_s=1e-7)
MAX_GROWTH_BYTES: Final = 400_000_000
BUDGET_BYTES: Final = TransitSettings().max_bytes
MESSAGE_BYTES: Final = GrpcSettings().max_request_bytes
CALLS_PER_CONNECTION: Final = 20
ENCODE: Final = f"/{SERVICE_NAME}/Encode"
STREAM: Final = f"/{SERVICE_NAME}/EncodeStream"
NEIGHBORS: Final = 20
IDLE_CLIENTS: Final = 48
HOSTILE: Final = "127.0.0.3"
SEQUENCES: Final = 56
"""Of 512 ids and a vector of 192 floats each: their response is as large as one may be."""
IN_TRANSIT: Final = "electra_transit_bytes"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServiceProcess]:
    """At default settings but for a short drain: the promises hold for them."""
    with stand_in(tmp_path, SCRIPT, "--lifecycle.drain_timeout_s=6") as started:
        yield started


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        pytest.param(ENCODE, 60, id="short"),
        pytest.param(ENCODE, 600, id="long", marks=pytest.mark.long),
        pytest.param(STREAM, 60, id="stream-long", marks=pytest.mark.long),
    ],
)
def test_messages_that_never_end(method: str, calls: int, process: ServiceProcess, report: Report) -> None:
    before = resident_bytes(process)
    unfinished = message(b"\0" * (MESSAGE_BYTES - 1024), length=MESSAGE_BYTES - 16)
    with ExitStack() as stack:
        for first in range(0, calls, CALLS_PER_CONNECTION):
            client = stack.enter_context(closing(Http2Client(process.grpc_port, source=HOSTILE)))
            for call in range(min(CALLS_PER_CONNECTION, calls - first)):
                client.open_call(2 * call + 1, method)
                client.send(2 * call + 1, unfinished)
        check(process, before, f"{calls} messages without an end to {method}", report)
        check_stops(process)


def test_idle_streams_of_many_clients(process: ServiceProcess, report: Report) -> None:
    """As many as the budget has room for, from as many addresses: none holds more than its share."""
    before = resident_bytes(process)
    with ExitStack() as stack:
        for address in range(IDLE_CLIENTS):
            client = stack.enter_context(closing(Http2Client(process.grpc_port, source=f"127.0.1.{address + 1}")))
            client.open_call(1, STREAM)
        wait_until(lambda: gauge(scrape(process), IN_TRANSIT) > BUDGET_BYTES * 0.9)
        time.sleep(RECLAIM_AFTER_S)
        check(process, before, f"idle streams of {IDLE_CLIENTS} clients", report)
        check_stops(process)


@pytest.mark.parametrize(
    ("method", "responses"),
    [
        pytest.param(ENCODE, 20, id="unary-short"),
        pytest.param(STREAM, 20, id="stream-short"),
        pytest.param(ENCODE, 200, id="unary-long", marks=pytest.mark.long),
        pytest.param(STREAM, 200, id="stream-long", marks=pytest.mark.long),
    ],
)
def test_responses_that_are_not_read(method: str, responses: int, process: ServiceProcess, report: Report) -> None:
    """Each of 56 × 512 positions: 22 MB with the demo's 192 dimensions."""
    before = resident_bytes(process)
    with ExitStack() as stack:
        client = stack.enter_context(closing(Http2Client(process.grpc_port, source=HOSTILE, window=100)))
        for call in range(responses):
            stream = 1 if method == STREAM else 2 * call + 1
            if stream == 2 * call + 1:
                client.open_call(stream, method)
            request = large_request(method, str(call))
            if client.send(stream, request, end=method == ENCODE) < len(request):
                break  # the server takes no more
        wait_until(lambda: gauge(scrape(process), IN_TRANSIT) > BUDGET_BYTES / 4)
        check(process, before, f"{responses} unread responses to {method.rpartition('/')[2]}", report)
        check_stops(process)


@pytest.mark.parametrize(
    "bodies", [pytest.param(200, id="short"), pytest.param(1000, id="long", marks=pytest.mark.long)]
)
def test_bodies_that_never_end(bodies: int, process: ServiceProcess, report: Report) -> None:
    before = resident_bytes(process)
    size = RestSettings().max_body_bytes
    head = f"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode()
    with ExitStack() as stack:
        for _ in range(bodies):
            connection = stack.enter_context(hostile_connection(process.rest_port))
            with suppress(TimeoutError, ConnectionError):  # rejected before the body is read
                connection.sendall(head + b" " * (size - 1))
        check(process, before, f"{bodies} bodies without an end", report)
        check_stops(process)


@pytest.mark.parametrize("readers", [pytest.param(20, id="short"), pytest.param(40, id="long", marks=pytest.mark.long)])
def test_rest_responses_that_are_not_read(readers: int, process: ServiceProcess, report: Report) -> None:
    before = resident_bytes(process)
    body = json.dumps({"token_ids": [[7] * 512] * SEQUENCES, "outputs": ["sequence_output"]}).encode()
    with ExitStack() as stack:
        for _ in range(readers):
            stack.enter_context(hostile_connection(process.rest_port)).sendall(post_request(body))
        wait_until(lambda: gauge(scrape(process), IN_TRANSIT) > BUDGET_BYTES / 4)
        check(process, before, f"{readers} REST responses unread", report)
        assert gauge(scrape(process), 'electra_requests_in_flight{transport="rest"}') >= 1
        check_stops(process)


def hostile_connection(port: int) -> socket.socket:
    """A connection of the hostile client, whose socket buffers little."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(1.0)
    connection.bind((HOSTILE, 0))
    connection.connect(("127.0.0.1", port))
    return connection


def large_request(method: str, request_id: str) -> bytes:
    """A message whose response is as large as one may be."""
    request = pb.EncodeRequest(
        request_id=request_id,
        tokens=pb.TokenInput(token_ids=[from_integers(np.full((SEQUENCES, 512), 7, np.int32))]),
        outputs=[pb.OUTPUT_SEQUENCE],
    )
    whole = pb.EncodeStreamRequest(request=request) if method == STREAM else request
    return message(whole.SerializeToString())


def check(process: ServiceProcess, before: float, load: str, report: Report) -> None:
    """Checks memory, the gauge, and that another client gets its responses."""
    exposition = scrape(process)
    grown = resident_bytes(process) - before
    began = time.monotonic()
    asyncio.run(ask_as_another(process, NEIGHBORS))
    took_s = time.monotonic() - began
    report(
        f"{load}: memory +{grown / 1e6:.0f} MB, {gauge(exposition, IN_TRANSIT) / 1e6:.0f} MB in transit, "
        f"{2 * NEIGHBORS} requests of another client within {took_s * 1e3:.0f} ms"
    )
    assert grown <= MAX_GROWTH_BYTES
    assert gauge(exposition, IN_TRANSIT) <= BUDGET_BYTES
    assert process.status("/livez") == process.status("/readyz") == 200


def check_stops(process: ServiceProcess) -> None:
    """Checks that SIGTERM ends the process as usual."""
    process.terminate()
    assert process.wait() == EXIT_OK
    assert process.complaints == []
