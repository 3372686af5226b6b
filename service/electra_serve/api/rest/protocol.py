"""uvicorn's HTTP protocol with bounds that it has none of: on a request's head, and on connections.

A head has so many bytes and so much time to arrive; what is left of a body that was answered unread has as much. What
a body takes on its way beyond its own bytes (frames of chunks, trailers) is bounded too, and trailers go unread.
Of requests that are sent before the ones ahead of them are answered, a connection has `MAX_PIPELINED`. Where
what follows them has to be refused, they get their answers first: the next answer is always the next request's.

There are at most `max_connections`. A connection is idle until its request's head is there, and again once it is
answered. Where one too many comes, the one that has been idle for longest is closed, as HTTP allows at any time (RFC
9112, 9.5): whoever opens connections by the thousand and leaves them takes them from himself. Only where all are at
work the newcomer is surplus: it may ask the probes, so that being busy is not taken for being dead, and nothing else.

A client that does not read what is left of its answer, in a connection that is to be closed, is not waited for.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from electra_serve.errors import Overloaded
from electra_serve.settings.schema import RestSettings

SURPLUS: Final = "electra_surplus"
"""In a request's state: its connection is one too many."""
CERTIFIED: Final = "electra_certified"
"""In a request's state: its client has shown a certificate that was found good."""
MAX_SURPLUS: Final = 64
"""More are closed unheard."""
MAX_PIPELINED: Final = 32
"""Each waits as some kilobytes of objects for some twenty bytes of request."""
MAX_UNREAD_BYTES: Final = 64 * 2**20
"""What is taken of a body that is answered already, so that its sender gets to read the answer."""

_LINE_BYTES: Final = len(b"  HTTP/1.1\r\n\r\n")
"""What a head has beside method, target and headers."""
_REJECTION: Final = (
    b"HTTP/1.1 %d %s\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\ncache-control: no-store\r\n"
    b"x-content-type-options: nosniff\r\nconnection: close\r\n\r\n%s"
)
_PROBLEM: Final = (
    b'{"type":"urn:problem-type:electra-serve:malformed_request","title":"Malformed request","status":%d,'
    b'"detail":"%s","code":"malformed_request"}'
)


class ConnectionsFull(Overloaded):
    """There are too many connections, and this one has to close."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Use the class that `bounded_protocol` makes: uvicorn gives a protocol no settings of ours."""

    max_head_bytes: ClassVar[int]
    max_framed_bytes: ClassVar[int]
    head_timeout_s: ClassVar[float]
    send_timeout_s: ClassVar[float]
    max_connections: ClassVar[int]
    idle: ClassVar[dict[BoundedHttpProtocol, None]]
    """Connections without a request, the longest idle first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._piece_bytes = 0
        self._mixed = False
        self._in_head = True
        self._in_body = False
        self._body_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        self._rejection = b""

    def connection_made(self, transport: Any) -> None:
        """Finds room for it, and gives the first head its time."""
        super().connection_made(transport)
        if transport.get_extra_info("peercert"):
            self.app_state = {**self.app_state, CERTIFIED: True}
        self.idle[self] = None
        if len(self.connections) > self.max_connections:
            self._make_room()
        self._expect(self.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets it, and tells the request at work; uvicorn tells the last one that came, which may wait behind it."""
        self._arrived()
        self.idle.pop(self, None)
        self.pipeline.clear()
        self._abandon()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_bytes, self._piece_bytes, self._in_head = _LINE_BYTES, 0, True
        self._expect(self.head_timeout_s)

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which counts for nothing."""
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + 4  # ": " and the line's end

    def on_headers_complete(self) -> None:
        """The head is there.

        Raises:
            BufferError: It is too long, or too many wait already. Whatever is raised here ends the parsing.
        """
        if self._head_bytes + len(self.parser.get_method()) > self.max_head_bytes:
            self._reject_head()
            raise BufferError("the head is too long")
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
            raise BufferError("too many requests before the first is answered")
        super().on_headers_complete()
        self._in_head, self._in_body, self._body_bytes = False, True, 0
        self._arrived()
        self.idle.pop(self, None)
        self.headers = []  # the request has its own; trailers come here, and nobody reads them
        self._read_on()

    def on_message_complete(self) -> None:
        """So is the body."""
        self._in_body, self._mixed = False, True
        self._arrived()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The request is answered; if another one waits behind it, that one begins."""
        last = not self.pipeline
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect(self.send_timeout_s)
        elif last and self._rejection:
            self._close_with(self._rejection)
        elif last:
            self.idle[self] = None
            if self._in_body:
                self._expect(self.head_timeout_s)

    def timeout_keep_alive_handler(self) -> None:
        """No further request has come, or the last answer has not been read."""
        self._abort()

    def data_received(self, data: bytes) -> None:
        """Counts what arrives of a head or a body that has not ended with it. What follows a refusal is dropped."""
        if self._rejection:
            return
        self._mixed = False
        super().data_received(data)
        if self._in_body:
            self._count_body(len(data))
        elif self._in_head and not self._mixed:
            self._count_head(len(data))

    def _count_body(self, arrived: int) -> None:
        self._body_bytes += arrived
        answered = self.cycle.response_complete
        if self._body_bytes > self.max_framed_bytes + (MAX_UNREAD_BYTES if answered else 0):
            self.transport.abort()

    def _count_head(self, arrived: int) -> None:
        """Counts pieces of a head that has not ended: the parser tells of a header when it knows where that ends.

        A piece with the end of the message ahead in it does not count: how much of it is this head's nobody knows.
        """
        self._piece_bytes += arrived
        if self._piece_bytes > self.max_head_bytes:
            self._reject_head()

    def _reject_head(self) -> None:
        detail = b"the request line and headers must have at most %d bytes; received more" % self.max_head_bytes
        self._reject(431, b"Request Header Fields Too Large", detail)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature
        """Refuses what is not HTTP, in the form that all refusals have."""
        self._reject(400, b"Bad Request", b"a request must be HTTP/1.1; received something else")

    def _reject(self, status: int, phrase: bytes, detail: bytes) -> None:
        """Ends the connection with a refusal of what is arriving, which comes after the answers to what is ahead."""
        if self._rejection or self.transport.is_closing():
            return
        problem = _PROBLEM % (status, detail)
        self._rejection = _REJECTION % (status, phrase, len(problem), problem)
        self._arrived()
        answered = self._in_body and self._withdraw()
        self._in_head = self._in_body = False
        if self._running is None or self._running.response_complete or self._running.disconnected:
            self._close_with(b"" if answered else self._rejection)
        else:
            self.flow.resume_reading()  # else nobody hears the client leave

    def _withdraw(self) -> bool:
        """Takes back the request whose body is arriving; tells whether its answer has begun already."""
        if self.pipeline:
            self.pipeline.popleft()
            return False
        self._abandon()
        return self.cycle.response_started

    def _close_with(self, last: bytes) -> None:
        self.transport.write(last)
        self.transport.close()
        self._expect(self.send_timeout_s)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _abandon(self) -> None:
        """Nobody waits for the answer to the request at work any more."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _read_on(self) -> None:
        """Goes on behind the request at work while little waits: who does not read does not hear a client leave."""
        waiting = sum(len(cycle.body) for cycle, _ in self.pipeline)
        if 0 < len(self.pipeline) < MAX_PIPELINED and waiting <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()

    def _make_room(self) -> None:
        oldest = next(iter(self.idle))
        if oldest is not self:
            del self.idle[oldest]
            oldest.transport.close()
        elif len(self.connections) > self.max_connections + MAX_SURPLUS:
            self.transport.close()
        else:
            self.app_state = {**self.app_state, SURPLUS: True}

    def _expect(self, timeout_s: float) -> None:
        """Gives the client its time for what it has to do."""
        self._arrived()
        self._timer = self.loop.call_later(timeout_s, self._abort)

    def _arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _abort(self) -> None:
        self.transport.abort()  # closing would wait until all that is written has been read


def bounded_protocol(settings: RestSettings) -> type[BoundedHttpProtocol]:
    """The protocol class of one server, with these bounds.

    Args:
        settings: `max_head_bytes`, `max_body_bytes`, `max_connections`, `send_timeout_s`, and `body_timeout_s`, which a
            head has too.
    """
    bounds = {
        "max_head_bytes": settings.max_head_bytes,
        "max_framed_bytes": settings.max_head_bytes + 2 * settings.max_body_bytes,
        "head_timeout_s": settings.body_timeout_s,
        "send_timeout_s": settings.send_timeout_s,
        "max_connections": settings.max_connections,
        "idle": {},
    }
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), bounds)
