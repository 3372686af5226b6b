"""Compressed requests and responses: gzip and deflate, as clients of the protocol choose them for each request."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from electra_serve.errors import MalformedRequest

CODINGS: Final = {
    "gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}  # deflate is zlib's format (RFC 9110, 8.4.1.2)
STEP_BYTES: Final = 2**16  # bytes of the input at a time
LEVEL: Final = 1  # numbers compress little, and higher levels take several times as long


def decompress(body: bytes, coding: str, max_bytes: int) -> bytes | None:
    """Decompresses a whole body; None as soon as it has more than `max_bytes`.

    Raises `MalformedRequest` for a body that ends early, goes on after its end, or is not of that coding.

    Example:
        >>> decompress(zlib.compress(b"ids"), "deflate", 3), decompress(zlib.compress(b"ids"), "deflate", 2)
        (b'ids', None)
    """
    decompressor = zlib.decompressobj(CODINGS[coding])
    view, at, parts, size = memoryview(body), 0, [], 0
    while at < len(body) and not decompressor.eof:
        piece: bytes | memoryview = view[at : at + STEP_BYTES]
        at += len(piece)
        while piece:
            try:
                part = decompressor.decompress(piece, max_bytes + 1 - size)
            except zlib.error as error:
                raise MalformedRequest(f"the body must be one {coding} stream; got other bytes") from error
            size += len(part)
            if size > max_bytes:
                return None
            parts.append(part)
            piece = decompressor.unconsumed_tail
    if not decompressor.eof:
        raise MalformedRequest(f"the body must be one whole {coding} stream; got a part of it")
    if decompressor.unused_data or at < len(body):
        raise MalformedRequest(f"the body must be one {coding} stream; got more bytes after its end")
    return b"".join(parts)


def response_coding(headers: Mapping[str, str]) -> str:
    """Returns the encoding of a response: the only one that the client names; "" for none.

    Lists are sent by HTTP libraries on their own, and numbers compress little, so they get plain responses.

    Example:
        >>> response_coding({"accept-encoding": "gzip"}), response_coding({"accept-encoding": "gzip, deflate"})
        ('gzip', '')
    """
    coding = headers.get("accept-encoding", "").strip().lower()
    return coding if coding in CODINGS else ""


def compressed(chunks: Sequence[bytes | memoryview], coding: str) -> Iterator[bytes]:
    """Compresses the chunks of a response, one after another."""
    compressor = zlib.compressobj(LEVEL, wbits=CODINGS[coding])
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), STEP_BYTES):
            yield compressor.compress(view[start : start + STEP_BYTES])
    yield compressor.flush()
