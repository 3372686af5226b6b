"""Deadlines of slow requests, over real sockets to the real process."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.integration.process import ServiceProcess, start

BODY_TIMEOUT_S: Final = 2.0
IDS: Final = b'{"token_ids":[[1,2,3]],"outputs":["mean_output"]}'
ENCODE: Final = b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """Starts a process with a short timeout of bodies."""
    folder = tmp_path_factory.mktemp("bounded")
    with start(folder, f"--rest.body_timeout_s={BODY_TIMEOUT_S}", "--log.format=json") as process:
        process.wait_ready()
        yield process


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
