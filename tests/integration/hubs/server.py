"""A web server on 127.0.0.1 whose responses a test can change; the base of both fake hubs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """Request of a client. `path` has neither host nor query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """Response to a client.

    Attributes:
        sent: Bytes of the body to send before the connection is closed; None for all of it.
        pause: Event to wait for after the first byte of the body.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    sent: int | None = None
    pause: Callable[[], object] | None = None


Fault = Callable[[Response], Response]
"""Changes a response."""


def status(code: int, **headers: str) -> Fault:
    """Another status, with nothing in it."""
    return lambda _: Response(code, {name.replace("_", "-"): value for name, value in headers.items()})


def cut(at: int) -> Fault:
    """The length of all of it, and then only so many bytes."""
    return lambda response: replace(response, sent=at)


def body(content: bytes) -> Fault:
    """Another body, with its own length."""

    def fault(response: Response) -> Response:
        length = {"Content-Length": str(len(content))} if "Content-Length" in response.headers else {}
        return replace(response, headers={**response.headers, **length}, body=content)

    return fault


def flip(response: Response) -> Response:
    """One byte in the middle is another; the length is the same."""
    content = bytearray(response.body)
    content[len(content) // 2] ^= 0xFF
    return replace(response, body=bytes(content))


class FakeHub:
    """Sends the responses of `make_response`, changed as the test requests.

    Attributes:
        requests: Every request, in order.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._faults: list[tuple[str, Fault, int]] = []
        self._released = threading.Event()
        self.port = 0

    def spoil(self, path: str, fault: Fault, times: int = 10**6) -> None:
        """Changes the next `times` responses to paths with `path` in them."""
        self._faults.append((path, fault, times))

    def hang(self, path: str) -> None:
        """Never sends more than the first byte."""
        self.spoil(path, lambda response: replace(response, pause=self._released.wait))

    def paths(self, part: str) -> list[str]:
        """Returns the requested paths with `part` in them."""
        return [request.path for request in self.requests if part in request.path]

    def make_response(self, request: Request) -> Response:
        raise NotImplementedError

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Listens until the end of the context."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            self._released.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def respond(self, request: Request) -> Response:
        """Returns the response to send, with its faults."""
        self.requests.append(request)
        response = self.make_response(request)
        for index, (path, fault, times) in enumerate(self._faults):
            if path in request.path and times > 0:
                self._faults[index] = (path, fault, times - 1)
                return fault(response)
        return response


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            path = urlsplit(self.path).path  # requests to a proxy have whole URLs
            response = hub.respond(Request(self.command, path, dict(self.headers), self.rfile.read(length)))
            self.send_response(response.status)
            for name, value in {"Content-Length": str(len(response.body)), **response.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self._send(response)

        def _send(self, response: Response) -> None:
            content = response.body if response.sent is None else response.body[: response.sent]
            try:
                self.wfile.write(content[:1])
                self.wfile.flush()
                if response.pause is not None:
                    response.pause()
                self.wfile.write(content[1:])
            except OSError:
                pass  # the client was ended
            self.close_connection = response.sent is not None or response.pause is not None

        do_GET = do_HEAD = do_POST = _respond  # noqa: N815  # the base class' names

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler
