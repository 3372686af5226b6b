"""The few frames of HTTP/2 (RFC 9113) that a hostile gRPC client needs.

It need not finish its messages nor read its responses, as stock clients do.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK: Final = 1
END_STREAM: Final = 1
END_HEADERS: Final = 4
INITIAL_WINDOW_SIZE: Final = 4
DEFAULT_WINDOW: Final = 65_535


class Http2Client:
    """One connection.

    Args:
        port: Where the server listens on 127.0.0.1.
        source: The address to call from.
        window: Bytes of each response that the server may send; it is never enlarged.
    """

    def __init__(self, port: int, *, source: str, window: int = DEFAULT_WINDOW) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))
        self._windows: dict[int, int] = {}
        self._initial = DEFAULT_WINDOW
        self._connection_window = DEFAULT_WINDOW
        self._received = b""
        self.ended: dict[int, bytes] = {}
        """Streams that the server has ended, and the last headers or error of each."""
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack("!HI", INITIAL_WINDOW_SIZE, window)))

    def open_call(self, stream: int, path: str, metadata: dict[str, str] | None = None) -> None:
        """Sends the head of a call."""
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
        fields["te"] = "trailers"  # codespell:ignore te
        fields |= {"content-type": "application/grpc", **(metadata or {})}
        block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in fields.items())
        self._windows[stream] = self._initial
        self._socket.sendall(frame(HEADERS, END_HEADERS, stream, block))

    def send(self, stream: int, data: bytes, *, end: bool = False) -> int:
        """Sends as much of `data` as flow control allows, and returns how much that was."""
        at = 0
        while at < len(data) and stream not in self.ended:
            room = min(self._windows[stream], self._connection_window, 16_384, len(data) - at)
            if room <= 0:
                if not self.read(timeout_s=0.2):
                    break
                continue
            last = end and at + room == len(data)
            self._socket.sendall(frame(DATA, END_STREAM if last else 0, stream, data[at : at + room]))
            self._windows[stream] -= room
            self._connection_window -= room
            at += room
        return at

    def read(self, timeout_s: float) -> bool:
        """Reads and obeys what the server sends; returns False if nothing came in time."""
        self._socket.settimeout(timeout_s)
        try:
            piece = self._socket.recv(2**16)
        except TimeoutError:
            return False
        self._received += piece
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3])
            if len(self._received) < 9 + length:
                break
            kind, flags, stream = struct.unpack("!BBI", self._received[3:9])
            self._obey(kind, flags, stream, self._received[9 : 9 + length])
            self._received = self._received[9 + length :]
        return bool(piece)

    def _obey(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack("!HI", payload[at : at + 6])
                if name == INITIAL_WINDOW_SIZE:
                    self._windows = {s: w + value - self._initial for s, w in self._windows.items()}
                    self._initial = value
            self._socket.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload)
            if stream:
                self._windows[stream] += more
            else:
                self._connection_window += more
        elif kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self.ended[stream] = payload

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns a frame."""
    return len(payload).to_bytes(3) + struct.pack("!BBI", kind, flags, stream) + payload


GREETING: Final = PREFACE + frame(SETTINGS, 0, 0, b"")
"""Begin of a connection, with empty settings."""


def message(data: bytes, *, length: int | None = None) -> bytes:
    """Returns a gRPC message; if `length` is larger than the data, the message never ends."""
    return b"\0" + (len(data) if length is None else length).to_bytes(4) + data


def _literal(text: str) -> bytes:
    """A string of an HPACK field, not compressed (RFC 7541, 5.2)."""
    data = text.encode()
    if len(data) >= 127:
        raise ValueError(f"text must have less than 127 bytes; got {len(data)}")
    return bytes([len(data)]) + data
