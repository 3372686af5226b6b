"""uvicorn's HTTP protocol with limits that it lacks: on heads, on bodies, on time and on connections.

- A head has `max_head_bytes` and `body_timeout_s`. The rest of a body after an early response has the same time.
- Headers and chunks are limited in number: each of them is a call into Python.
- An `Upgrade` offer is ignored, and CONNECT is rejected.
- A connection serves one request at a time. Bytes that follow an unanswered request are dropped, and the connection
  closes after its response.
- Every idle connection has a timer. `ConnectionTable` limits their number (RFC 9112, 9.5).
- A client that does not read its last response in time is disconnected.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from electra_serve.api.connections import Connection, ConnectionTable, Phase
from electra_serve.api.rest.upgrade import body_parser, framing_head
from electra_serve.errors import Overloaded
from electra_serve.settings.schema import RestSettings

SURPLUS: Final = "electra_surplus"  # key of a request's state: its connection is over the limit
# Key of a request's state: a function that closes the connection without waiting for the client
ABORT: Final = "electra_abort"
CERTIFIED: Final = "electra_certified"  # key of a request's state: the client has a valid certificate
# Key of a request's state: arrival of its first byte, in seconds of `time.monotonic`
ARRIVED: Final = "electra_arrived"
MAX_HEADERS: Final = 128  # Most headers of one request, trailers included. Proxies and other servers accept 100.
# Average size of chunks, below which the largest body would have too many; `MIN_CHUNKS` are always accepted
MIN_CHUNK_BYTES: Final = 512
MIN_CHUNKS: Final = 1024
# Most bytes that are read of a body after an early response, so that the client can read that response
MAX_UNREAD_BYTES: Final = 64 * 2**20

_LINE_BYTES: Final = len(b"  HTTP/1.1\r\n\r\n")  # bytes of a head in addition to method, target and headers
_REJECTION: Final = (
    b"HTTP/1.1 %s\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n%scache-control: no-store\r\n"
    b"x-content-type-options: nosniff\r\nconnection: close\r\n\r\n%s"
)
_PROBLEM: Final = b'{"type":"urn:problem-type:electra-serve:%s","title":"%s","status":%s,"detail":"%s","code":"%s"}'


def _rejection(
    status: bytes,
    detail: bytes,
    *,
    code: bytes = b"malformed_request",
    title: bytes = b"Malformed request",
    header: bytes = b"",
) -> bytes:
    problem = _PROBLEM % (code, title, status[:3], detail, code)
    return _REJECTION % (status, len(problem), header, problem)


_NO_HTTP: Final = _rejection(b"400 Bad Request", b"a request must be HTTP/1.1; received something else")
_NO_TUNNELS: Final = _rejection(
    b"405 Method Not Allowed",
    b"this server is no proxy: CONNECT is not allowed",
    code=b"method_not_allowed",
    title=b"Method not allowed",
    header=b"allow: \r\n",
)


class ConnectionsFull(Overloaded):
    """The connection is over the limit and closes."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Use the class that `bounded_protocol` makes: uvicorn gives a protocol no settings of ours."""

    max_head_bytes: ClassVar[int]
    max_framed_bytes: ClassVar[int]
    max_chunks: ClassVar[int]
    head_timeout_s: ClassVar[float]
    send_timeout_s: ClassVar[float]
    table: ClassVar[ConnectionTable]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._piece_bytes = 0
        self._mixed = False
        self._in_head = True
        self._in_body = False
        self._body_bytes = 0
        self._headers = 0
        self._chunks = 0
        self._dropping = False
        self._timer: asyncio.TimerHandle | None = None
        self.connection: Connection | None = None  # set before `connection_made` if it is already admitted

    def connection_made(self, transport: Any) -> None:
        """Admits the connection if that was not done, and limits the time of its first head."""
        super().connection_made(transport)
        if self.connection is None:
            self.connection = self.table.admit(self.client[0] if self.client else "", transport.abort)
        if self.connection is None:
            transport.abort()
            return
        self.connection.close = transport.abort
        self.app_state = {**self.app_state, ABORT: self.abort}
        if transport.get_extra_info("peercert"):
            self.app_state = {**self.app_state, CERTIFIED: True}
        if self.connection.over_limit:
            self.app_state = {**self.app_state, SURPLUS: True}
        self._start_timer(self.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Removes the connection, and reports to its request that the client has disconnected."""
        self._stop_timer()
        if self.connection is not None:
            self.table.remove(self.connection)
        super().connection_lost(exc)

    @property
    def waits_for_client(self) -> bool:
        """True if the client has to send the rest of its request, read the rest of its response, or disconnect."""
        return self._in_body or not self._unanswered or self.cycle.response_started

    def abort(self) -> None:
        """Closes the connection without waiting for its client."""
        self.transport.abort()

    def on_message_begin(self) -> None:
        """Begins a head; raises `BufferError`, which ends the parsing, if the request before it has no response yet."""
        if self._unanswered:
            self._close_after_response()
            raise BufferError("pipelining is not served")
        super().on_message_begin()
        self.scope["state"][ARRIVED] = time.monotonic()
        self._stop_keep_alive()
        self._head_bytes, self._piece_bytes, self._in_head = _LINE_BYTES, 0, True
        self._headers = self._chunks = 0
        self._start_timer(self.head_timeout_s)

    def on_url(self, url: bytes) -> None:
        """Counts a part of the request's target."""
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Counts a header, or a trailer, which is not used; raises `BufferError` if there are too many."""
        self._headers += 1
        if self._headers > MAX_HEADERS:
            self._reject_fields(b"a request must have at most %d headers; received more" % MAX_HEADERS)
            raise BufferError("too many headers")
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + 4  # ": " and the line's end

    def on_headers_complete(self) -> None:
        """Starts the request; raises `BufferError` if the head is too long, or the method is CONNECT."""
        method = self.parser.get_method()
        if self._head_bytes + len(method) > self.max_head_bytes:
            self._reject_head()
            raise BufferError("the head is too long")
        if method == b"CONNECT":
            self._reject(_NO_TUNNELS)
            raise BufferError("this is no proxy")
        super().on_headers_complete()
        self._in_head, self._in_body, self._body_bytes = False, True, 0
        self._stop_timer()
        self._move(Phase.RECEIVING)
        self.headers = []  # the request has its own; this list receives trailers

    def on_chunk_header(self) -> None:
        """Counts a chunk; raises `BufferError` if there are too many."""
        self._chunks += 1
        if self._chunks > self.max_chunks + 1:  # an empty one ends the body
            detail = b"a body must have at most %d chunks; received more: send larger ones" % self.max_chunks
            self._reject(_rejection(b"400 Bad Request", detail))
            raise BufferError("too many chunks")

    def on_message_complete(self) -> None:
        """Ends the body."""
        if self.parser.should_upgrade():
            return  # llhttp ends the message here, before its body
        self._in_body, self._mixed = False, True
        if self._unanswered:
            self._move(Phase.WORKING)
        else:  # the response came first
            self._start_timer(self.timeout_keep_alive)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Ends the request."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._start_timer(self.send_timeout_s)
            return
        self._move(Phase.IDLE)
        if self._in_body:
            self._stop_keep_alive()
            self._start_timer(self.head_timeout_s)

    def timeout_keep_alive_handler(self) -> None:
        """Closes a connection without a further request."""
        self._abort()

    def data_received(self, data: bytes) -> None:
        """Parses what arrives, and counts what belongs to an unfinished head or body."""
        if self._dropping:
            return
        self._mixed = False
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._reject(_NO_HTTP)
            return
        if self._in_body:
            self._count_body(len(data))
        elif self._in_head and not self._mixed:
            self._count_head(len(data))

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self.parser = body_parser(self)
                data = framing_head(self.scope["headers"]) + data[offer.args[0] :]
            else:
                return

    @property
    def _unanswered(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _count_body(self, arrived: int) -> None:
        self._body_bytes += arrived
        allowed = self.max_framed_bytes + (0 if self._unanswered else MAX_UNREAD_BYTES)
        if self._body_bytes > allowed:
            self.transport.abort()

    def _count_head(self, arrived: int) -> None:
        """Counts pieces of an unfinished head: the parser reports a header only when it is complete.

        A piece that begins with the end of another message does not count: the share of the head is unknown.
        """
        self._piece_bytes += arrived
        if self._piece_bytes > self.max_head_bytes:
            self._reject_head()

    def _reject_head(self) -> None:
        self._reject_fields(
            b"the request line and headers must have at most %d bytes; received more" % self.max_head_bytes
        )

    def _reject_fields(self, detail: bytes) -> None:
        self._reject(_rejection(b"431 Request Header Fields Too Large", detail))

    def _reject(self, rejection: bytes) -> None:
        """Closes the connection, after a rejection if the client can still take it for the response to its request."""
        if self._dropping or self.transport.is_closing():
            return
        if self._unanswered and not self._in_body:
            self._close_after_response()
            return
        self._dropping = True
        readable = not self._in_body or (self._unanswered and not self.cycle.response_started)
        if self._unanswered:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(rejection if readable else b"")
        self.transport.close()
        self._start_timer(self.send_timeout_s)

    def _close_after_response(self) -> None:
        """Drops bytes that follow the request; reading goes on, to notice that the client disconnects."""
        self._dropping = True
        self.cycle.keep_alive = False
        self.flow.resume_reading()

    def _move(self, phase: Phase) -> None:
        if self.connection is not None:
            self.table.move(self.connection, phase)

    def _start_timer(self, timeout_s: float) -> None:
        """Disconnects the client after `timeout_s`, unless the timer is stopped."""
        self._stop_timer()
        self._timer = self.loop.call_later(timeout_s, self._abort)

    def _stop_keep_alive(self) -> None:
        """Stops uvicorn's own timer, which it starts after each response."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _abort(self) -> None:
        self.transport.abort()  # closing would wait until all that is written has been read


def bounded_protocol(settings: RestSettings, table: ConnectionTable) -> type[BoundedHttpProtocol]:
    """Returns the protocol class of one server, with the limits of `settings` and the connections of `table`."""
    bounds = {
        "max_head_bytes": settings.max_head_bytes,
        "max_framed_bytes": settings.max_head_bytes + 2 * settings.max_body_bytes,
        "max_chunks": max(settings.max_body_bytes // MIN_CHUNK_BYTES, MIN_CHUNKS),
        "head_timeout_s": settings.body_timeout_s,
        "send_timeout_s": settings.send_timeout_s,
        "table": table,
    }
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), bounds)
