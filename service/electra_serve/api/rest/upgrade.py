"""Reads the body of a request whose `Upgrade` offer is ignored (RFC 9110, 7.8).

llhttp ends a message at its head if it offers an upgrade, whatever body follows. A second parser reads that body: it is
given a head with the same framing, which is not reported to the protocol.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import httptools

_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))


class ParserCallbacks(Protocol):
    """The callbacks of httptools."""

    def on_message_begin(self) -> None:
        """Begins a head."""

    def on_url(self, url: bytes) -> None:
        """Receives a part of the target."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receives a header or a trailer."""

    def on_headers_complete(self) -> None:
        """Ends a head."""

    def on_body(self, body: bytes) -> None:
        """Receives a part of the body."""

    def on_chunk_header(self) -> None:
        """Begins a chunk of the body."""

    def on_message_complete(self) -> None:
        """Ends a message."""


def body_parser(protocol: ParserCallbacks) -> httptools.HttpRequestParser:
    """Returns a parser for the rest of the connection; feed it with `framing_head` first."""
    parser = httptools.HttpRequestParser(_AfterHead(protocol))
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as in uvicorn's own parser
    return parser


def framing_head(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    r"""Returns a head whose body has the same framing as that of `headers`, without an upgrade.

    >>> framing_head([(b"host", b"x"), (b"upgrade", b"h2c"), (b"content-length", b"5")])
    b'POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n'
    """
    framing = b"".join(b"%s: %s\r\n" % (name, value) for name, value in headers if name in _FRAMING)
    return b"POST / HTTP/1.1\r\n%s\r\n" % framing


class _AfterHead:
    """Passes the callbacks on, except those of the first head."""

    def __init__(self, protocol: ParserCallbacks) -> None:
        self._protocol = protocol
        self._in_first_head = True
        self.on_body = protocol.on_body
        self.on_chunk_header = protocol.on_chunk_header
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self._in_first_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._in_first_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_first_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._in_first_head:
            self._protocol.on_headers_complete()
        self._in_first_head = False
