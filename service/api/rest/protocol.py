"""uvicorn's HTTP protocol with bounds on a request's head, which it has none of: bytes, and time to arrive."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.settings import RestSettings

_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
)
_PROBLEM: Final = (
    b'{"type":"urn:problem-type:electra-serve:malformed_request","title":"Malformed request","status":431,'
    b'"detail":"the request line and headers must have at most %d bytes; received more","code":"malformed_request"}'
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Use the class that `bounded_protocol` makes: uvicorn gives a protocol no settings of ours."""

    max_head_bytes: ClassVar[int]
    head_timeout_s: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Gives the first head its time."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the timer."""
        self._head_arrived()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_bytes, self._in_head = 0, True
        self._await_head()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._head_arrived()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Counts what arrives of a head that has not ended with it."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self.max_head_bytes:
                problem = _PROBLEM % self.max_head_bytes
                self.transport.write(_REFUSAL % (len(problem), problem))
                self.transport.close()

    def _await_head(self) -> None:
        self._head_arrived()
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def bounded_protocol(settings: RestSettings) -> type[BoundedHttpProtocol]:
    """The protocol class with these bounds.

    Args:
        settings: `max_head_bytes`, and `body_timeout_s`, which a head has too.
    """
    bounds = {"max_head_bytes": settings.max_head_bytes, "head_timeout_s": settings.body_timeout_s}
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), bounds)
