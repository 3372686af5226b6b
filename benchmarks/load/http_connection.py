"""HTTP/1.1 for the load generator: one request at a time on each connection.

Only the end of a response is looked for, so that one core of generator can load several cores of service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ENCODE_PATH: Final = "/v1/encode"
HEAD_END: Final = b"\r\n\r\n"
_CHUNKED: Final = -1


def post_request(
    body: bytes,
    path: str = ENCODE_PATH,
    headers: Mapping[str, str] | None = None,
    *,
    content_type: str = "application/json",
) -> bytes:
    """Builds a POST.

    Example:
        >>> post_request(b"{}", "/v1", {"x-a": "b"}).splitlines()[0::3]
        [b'POST /v1 HTTP/1.1', b'x-a: b', b'{}']
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\n{lines}content-length: {len(body)}"
    return head.encode() + HEAD_END + body


class HttpConnection(asyncio.Protocol):
    """One connection; a subclass handles each complete response.

    Attributes:
        transport: The socket, once there is one.
        waiting: A request has no response yet.
        closing: The server closes the connection after the last response.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.waiting = False
        self.closing = False
        self._received: bytes | bytearray = b""
        self._end: int | None = None

    def connection_made(self, transport: Any) -> None:
        """Keeps the transport."""
        self.transport = transport

    def send(self, request: bytes) -> None:
        """Sends a request; the previous one has its response."""
        self._received, self._end, self.waiting = b"", None, True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Passes on a response once it is complete."""
        if not self._received:
            self._received = data  # mostly all of it, and not copied
        else:
            self._received = bytearray(self._received) if isinstance(self._received, bytes) else self._received
            self._received += data
        if self._end is None:
            self._read_head()
        if self.waiting and self._complete():
            self.waiting = False
            self.responded(bytes(self._received))

    def responded(self, response: bytes) -> None:
        """Handles a complete response."""
        raise NotImplementedError

    def _read_head(self) -> None:
        end = self._received.find(HEAD_END)
        if end < 0:
            return
        head = self._received[:end].lower()
        self.closing = b"\r\nconnection: close" in head
        _, found, rest = head.partition(b"\r\ncontent-length:")
        self._end = end + len(HEAD_END) + int(rest.split(b"\r\n", 1)[0]) if found else _CHUNKED

    def _complete(self) -> bool:
        if self._end is None:
            return False
        if self._end == _CHUNKED:
            return self._received.endswith(b"\r\n0\r\n\r\n")
        return len(self._received) >= self._end


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response in parts; header names are in lower case."""

    status: str
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def parse(cls, response: bytes) -> HttpResponse:
        r"""Splits a complete response.

        Example:
            >>> HttpResponse.parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n").body
            b'{}'
        """
        head, _, body = response.partition(HEAD_END)
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = _join_chunks(body)
        return cls(status_line.split()[1], headers, body)


def _join_chunks(data: bytes) -> bytes:
    pieces, at = [], 0
    while size := int(data[at : (end := data.index(b"\r\n", at))], 16):
        pieces.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(pieces)
