"""What a connection may do to the process: over real sockets, with the real server."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest

from electra_serve.runtime.file_limit import raise_descriptor_limit
from tests.integration.process import ServiceProcess, start
from tests.waiting import wait_until

MAX_CONNECTIONS: Final = 256
IDLE: Final = 2000
HALF_CLOSED: Final = 50
BODY_TIMEOUT_S: Final = 2.0
IDS: Final = b'{"token_ids":[[1,2,3]],"outputs":["mean_output"]}'
ENCODE: Final = b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
JSON: Final = {"content-type": "application/json"}


def test_a_head_without_end_is_refused(service: ServiceProcess) -> None:
    with socket.create_connection(("127.0.0.1", service.rest_port), timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n")
        answer = _send_until_answered(connection, b"x-filler: " + b"a" * 1000 + b"\r\n", most=200)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"application/problem+json" in answer
    assert service.status("/livez") == 200


def test_a_head_just_below_the_limit_is_answered(service: ServiceProcess) -> None:
    assert httpx.get(f"{service.url}/livez", headers={"x-filler": "a" * 30_000}).status_code == 200


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A process with bounds that a test soon reaches."""
    folder: Path = tmp_path_factory.mktemp("bounded")
    bounds = (f"--rest.max_connections={MAX_CONNECTIONS}", f"--rest.body_timeout_s={BODY_TIMEOUT_S}")
    with start(folder, *bounds, "--log.format=json") as process:
        process.wait_ready()
        yield process


def test_thousands_of_idle_connections_are_nobody_elses(bounded: ServiceProcess) -> None:
    assert raise_descriptor_limit() > IDLE + 200, "this process may not open as many"
    with ExitStack() as opened, httpx.Client(base_url=bounded.url, timeout=30) as client:
        for number in range(IDLE):
            opened.enter_context(socket.create_connection(("127.0.0.1", bounded.rest_port), timeout=30))
            if number % 250 == 0:
                assert bounded.status("/readyz") == 200
                assert client.post("/v1/encode", content=IDS, headers=JSON).status_code == 200
    assert bounded.complaints == []


def test_half_closed_requests_are_taken_for_left_and_hurt_nobody(bounded: ServiceProcess) -> None:
    """Who has left cannot be told from who only has no more to say: see decision 15."""
    with ExitStack() as opened:
        for _ in range(HALF_CLOSED):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", bounded.rest_port), timeout=30))
            connection.sendall(ENCODE % len(IDS) + IDS)
            connection.shutdown(socket.SHUT_WR)
        assert httpx.post(f"{bounded.url}/v1/encode", content=IDS, headers=JSON).status_code == 200
    wait_until(lambda: 'electra_requests_in_flight{transport="rest"} 0.0' in httpx.get(f"{bounded.url}/metrics").text)


def test_a_body_that_does_not_come_has_its_time(bounded: ServiceProcess) -> None:
    with socket.create_connection(("127.0.0.1", bounded.rest_port), timeout=30) as connection:
        connection.sendall(ENCODE % 1000 + b"{")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("name", ["x-request-timeout-ms", "x-envoy-expected-rq-timeout-ms"])
@pytest.mark.parametrize("cut", ["first byte", "head", "body"])
def test_a_deadline_runs_from_the_first_byte(cut: str, name: str, bounded: ServiceProcess) -> None:
    head = ENCODE.replace(b"host: x", b"host: x\r\n%s: 500" % name.encode()) % len(IDS)
    sent = {"first byte": 1, "head": len(head) - 2, "body": len(head) + 5}[cut]
    with socket.create_connection(("127.0.0.1", bounded.rest_port), timeout=30) as connection:
        connection.sendall((head + IDS)[:sent])
        started = time.monotonic()
        if cut != "body":
            time.sleep(0.7)
            connection.sendall((head + IDS)[sent:])
        assert _response(connection).startswith(b"HTTP/1.1 504 ")
        assert 0.4 < time.monotonic() - started < BODY_TIMEOUT_S
        connection.sendall((head + IDS)[sent:] if cut == "body" else b"")
        connection.sendall(ENCODE % len(IDS) + IDS)
        assert _response(connection).startswith(b"HTTP/1.1 200 "), "the connection goes on"


def _response(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"}"):
        received += connection.recv(65_536)
    return received


def _send_until_answered(connection: socket.socket, piece: bytes, most: int) -> bytes:
    for _ in range(most):
        try:
            connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            break
    try:
        return connection.recv(4096)
    except ConnectionResetError:
        return b""
