"""A call ends with its time, however a server divides it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from electra_serve.client import AsyncElectraClient, ElectraClient, RetryPolicy, Tls, TransportError
from electra_serve.errors import DeadlineExceeded, Overloaded
from tests.certificates import Authority
from tests.unit.client.test_rest_codec import RESPONSE

ONCE = RetryPolicy(max_attempts=1)
BODY = json.dumps(RESPONSE | {"models": []}).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)
STEP_S = 0.05
LIMIT_S = 0.4
MOST_S = 2.0
"""Far less than any of the servers here takes."""

Pieces = Callable[[], Iterator[bytes]]


def silent() -> Iterator[bytes]:
    return (b"" for _ in count())


def slow_head() -> Iterator[bytes]:
    return (bytes([byte]) for byte in HEAD + BODY)


def slow_body() -> Iterator[bytes]:
    yield HEAD
    for byte in BODY:
        yield bytes([byte])


def stalled_body() -> Iterator[bytes]:
    yield HEAD + BODY[:-1]
    yield from silent()


def overloaded() -> Iterator[bytes]:
    problem = b'{"code":"overloaded","detail":"full","retry_after_s":0.05}'
    yield b"HTTP/1.1 429 Full\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(problem), problem)


def whole() -> Iterator[bytes]:
    yield HEAD + BODY


@contextmanager
def serve(*responses: Pieces, reads: bool = True, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serves each request a response piece by piece; the last one to all that follow."""
    over = threading.Event()

    def response(accepted: socket.socket) -> None:
        with suppress(OSError), accepted if tls is None else tls.wrap_socket(accepted, server_side=True) as connection:
            while not over.is_set() and (not reads or connection.recv(65_536)):
                pieces = responses[min(next(numbers), len(responses) - 1)]
                for piece in pieces() if reads else silent():
                    connection.sendall(piece)
                    if over.wait(STEP_S if pieces is not whole else 0):
                        return

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=response, args=(listener.accept()[0],), daemon=True).start()

    numbers = count()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


def blocking(url: str, retry: RetryPolicy, calls: int, **request: Any) -> None:
    with ElectraClient(url, retry=retry) as client:
        for _ in range(calls):
            client.encode(**request) if request else client.models(timeout_s=LIMIT_S)


def awaited(url: str, retry: RetryPolicy, calls: int, **request: Any) -> None:
    async def run() -> None:
        async with AsyncElectraClient(url, retry=retry) as client:
            for _ in range(calls):
                await (client.encode(**request) if request else client.models(timeout_s=LIMIT_S))

    asyncio.run(run())


ENCODE = {"text": "a", "timeout_s": LIMIT_S}


@pytest.mark.parametrize("call", [blocking, awaited])
@pytest.mark.parametrize("request_", [ENCODE, {}], ids=["encode", "models"])
@pytest.mark.parametrize("responses", [silent, slow_head, slow_body, stalled_body])
@pytest.mark.parametrize("before", [0, 2], ids=["new connection", "kept connection"])
def test_a_call_ends_with_its_time(
    call: Callable[..., None], request_: dict[str, Any], responses: Pieces, before: int
) -> None:
    with serve(*[whole] * before, responses) as url:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="cannot get a response: none within"):
            call(url, ONCE, before + 1, **request_)
        assert LIMIT_S * 0.9 < time.monotonic() - started < MOST_S


@pytest.mark.parametrize("responses", [slow_head, slow_body, stalled_body])
def test_a_call_over_tls_ends_with_its_time(responses: Pieces, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("server", "127.0.0.1"))
    with serve(responses, tls=server) as url, ElectraClient(url, tls=Tls(ca_file=authority.file), retry=ONCE) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.encode(text="a", timeout_s=LIMIT_S)
        assert LIMIT_S * 0.9 < time.monotonic() - started < MOST_S


@pytest.mark.parametrize("call", [blocking, awaited])
def test_a_server_that_reads_nothing_is_not_waited_for(call: Callable[..., None]) -> None:
    with serve(silent, reads=False) as url:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            call(url, ONCE, 1, text="a" * 20_000_000, timeout_s=LIMIT_S)
        assert time.monotonic() - started < 2 * MOST_S


@pytest.mark.parametrize("call", [blocking, awaited])
@pytest.mark.parametrize("responses", [overloaded, slow_body])
def test_the_time_is_that_of_all_attempts(call: Callable[..., None], responses: Pieces) -> None:
    retry = RetryPolicy(max_attempts=1000, first_wait_s=0.01)
    with serve(overloaded, overloaded, responses) as url:
        started = time.monotonic()
        with pytest.raises((DeadlineExceeded, Overloaded)):
            call(url, retry, 1, **ENCODE)
        assert time.monotonic() - started < MOST_S


def test_what_is_left_goes_with_each_attempt() -> None:
    seen: list[int] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(int(request.headers["x-request-timeout-ms"]))
        time.sleep(0.1)
        return httpx.Response(429, json={"code": "overloaded", "detail": "full", "retry_after_s": 0.0})

    http = httpx.Client(transport=httpx.MockTransport(handle))
    client = ElectraClient("http://electra.test", http=http, retry=RetryPolicy(max_attempts=3))
    with pytest.raises(Overloaded):
        client.encode(text="a", timeout_s=5)
    assert 4900 < seen[0] <= 5000
    assert all(later <= earlier - 99 for earlier, later in pairwise(seen))
    assert len(seen) == 3


def test_a_connection_serves_calls_of_others_without_a_limit() -> None:
    def late() -> Iterator[bytes]:
        yield from islice(silent(), 10)
        yield HEAD + BODY

    with serve(whole, late) as url, httpx.Client() as http:
        ElectraClient(url, http=http, retry=ONCE, timeout_s=0.3).encode(text="a")
        assert http.get(f"{url}/v1/models").status_code == 200


def test_no_server_is_a_transport_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for call in (blocking, awaited):
        with pytest.raises(TransportError):
            call(url, ONCE, 1, **ENCODE)
