"""Renders JSON responses; an `EncodeResult` in pieces that leave the event loop free.

orjson writes numpy arrays directly, about 50 ns a number, but holds the GIL meanwhile. 32 rows of 512 positions, 768
wide, would block the event loop for more than half a second. So a large result is written on a worker thread, in pieces
of at most `PIECE_FLOATS` numbers. Joined, they are byte for byte what one `orjson.dumps` gives.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol, TypeVar

import numpy as np
import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from electra_serve.api.rest.body import JSON_MEDIA_TYPE
from electra_serve.api.rest.protocol import ABORT
from electra_serve.api.rest.schemas import EncodingFormat
from electra_serve.api.sockets import send_limit_s
from electra_serve.serving.encode import EncodeResult
from electra_serve.serving.transit_budget import Reservation
from electra_serve.tensors import Float32Array, Int32Array, Output

T = TypeVar("T")

PIECE_ITEMS: Final = 1024  # most small objects written under one hold of the interpreter's lock, in a millisecond

PIECE_FLOATS: Final = 65_536  # most numbers written under one hold of the interpreter's lock
INLINE_FLOATS: Final = 16_384  # results with no more numbers are written on the event loop, in a millisecond
# Pieces are joined until they are at least this large, so that the socket is not fed by crumbs
CHUNK_BYTES: Final = 2**20


def json_response(content: object) -> Response:
    """Returns a response of plain values, dataclasses and enums."""
    return Response(orjson.dumps(content), media_type=JSON_MEDIA_TYPE)


class Chunks(Response):
    """Response in one or more chunks.

    Each chunk is sent after the socket has accepted the previous one. Views of bytes are sent in parts and not copied.
    A client that stalls for `send_timeout_s`, plus one second for each megabyte, is disconnected.
    """

    def __init__(
        self,
        chunks: Sequence[bytes | memoryview],
        *,
        send_timeout_s: float,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._length = sum(map(len, chunks))
        super().__init__(headers={**(headers or {}), "content-length": str(self._length)}, media_type=media_type)
        self._chunks = deque(chunks)
        self._timeout_s = send_limit_s(send_timeout_s, self._length)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Sends the response; raises `TimeoutError` if a stalled client cannot be disconnected otherwise."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._shrink(self._length)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._send_chunks(send)
        except TimeoutError:
            abort = scope.get("state", {}).get(ABORT)
            if abort is None:
                raise
            self._chunks.clear()
            abort()
            await send({"type": "http.response.body", "body": b"", "more_body": True})  # until it is disconnected

    async def _send_chunks(self, send: Send) -> None:
        unsent = self._length
        while self._chunks:
            chunk = self._chunks.popleft()
            for part in _parts(chunk):
                unsent -= len(part)
                await send({"type": "http.response.body", "body": part, "more_body": unsent > 0})
            self._shrink(unsent)

    def _shrink(self, unsent: int) -> None:
        """Releases all but `unsent` bytes of a budget, if there is one."""


class EncodedResponse(Chunks):
    """Response whose chunks are released with their parts of the budget; JSON unless its headers are changed."""

    def __init__(
        self, chunks: Sequence[bytes | memoryview], *, send_timeout_s: float, reservation: Reservation
    ) -> None:
        super().__init__(chunks, send_timeout_s=send_timeout_s, media_type=JSON_MEDIA_TYPE)
        self._reservation = reservation

    def _shrink(self, unsent: int) -> None:
        self._reservation.shrink(unsent)


def _parts(chunk: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """Yields parts of a view, so that encryption does not hold the event loop; all of them need its whole array."""
    if isinstance(chunk, bytes) or len(chunk) <= CHUNK_BYTES:
        yield chunk
        return
    for start in range(0, len(chunk), CHUNK_BYTES):
        yield chunk[start : start + CHUNK_BYTES]


class RunOnThread(Protocol):
    """Runs a function on a thread."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Returns what `work` returns."""


async def render(result: EncodeResult, encoding_format: EncodingFormat, on_thread: RunOnThread) -> list[bytes]:
    """Renders a response as chunks in order, on a thread if it is large."""
    return await in_chunks(pieces(result, encoding_format), on_thread, large=result.values > INLINE_FLOATS)


def pieces(result: EncodeResult, encoding_format: EncodingFormat, *, max_floats: int = PIECE_FLOATS) -> Iterator[bytes]:
    """Renders `model`, the requested outputs, `usage` and `truncated`, in this order.

    A piece of nested lists has at most `max_floats` numbers; a position is never split.
    """
    yield b'{"model":' + orjson.dumps(result.model)
    for output in Output:
        if output in result.outputs:
            yield f',"{output.value}":['.encode()
            rows = (row.get(output) for row in result.rows)
            yield from _separated(rows, _base64 if encoding_format == "base64" else _nested(max_floats))
            yield b"]"
    usage = {"sequences": len(result.rows), "tokens": result.tokens}
    yield b',"usage":' + orjson.dumps(usage) + b',"truncated":' + orjson.dumps(result.truncated) + b"}"


def nested_lists(arrays: Iterable[Float32Array], *, max_floats: int = PIECE_FLOATS) -> Iterator[bytes]:
    """Renders a list of arrays, in pieces as `pieces` does."""
    yield b"["
    yield from _separated(arrays, _nested(max_floats))
    yield b"]"


def flat_list(array: Float32Array | Int32Array, *, max_numbers: int = PIECE_FLOATS) -> Iterator[bytes]:
    """Renders a list of the numbers of an array in C order, in pieces as `pieces` does."""
    numbers = array.reshape(-1)
    yield b"["
    for start in range(0, numbers.size, max_numbers):
        yield (b"," if start else b"") + _dumps(numbers[start : start + max_numbers])[1:-1]
    yield b"]"


def listed(items: Iterable[Mapping[str, object]], *, at_once: int = PIECE_ITEMS) -> Iterator[bytes]:
    """Renders a list of objects, `at_once` in a piece; float32 numbers get their shortest decimals."""
    remaining, mark = iter(items), b"["
    while part := list(islice(remaining, at_once)):
        yield mark + orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        mark = b","
    yield b"[]" if mark == b"[" else b"]"


async def in_chunks(parts: Iterable[bytes], on_thread: RunOnThread, *, large: bool) -> list[bytes]:
    """Joins pieces to the chunks of a response, on a thread if it is large."""
    if not large:
        return [b"".join(parts)]
    rendered = _join(parts, CHUNK_BYTES)
    chunks = []
    while chunk := await on_thread(lambda: next(rendered, b"")):
        chunks.append(chunk)
    return chunks


def _separated(rows: Iterable[Float32Array], write: Callable[[Float32Array], Iterator[bytes]]) -> Iterator[bytes]:
    for index, row in enumerate(rows):
        if index:
            yield b","
        yield from write(row)


def _nested(max_floats: int) -> Callable[[Float32Array], Iterator[bytes]]:
    def write(array: Float32Array) -> Iterator[bytes]:
        array = np.ascontiguousarray(array)
        if array.size <= max_floats or array.ndim == 1:
            yield _dumps(array)
            return
        step = max(1, max_floats // array.shape[1])
        yield b"["
        for start in range(0, len(array), step):
            yield (b"," if start else b"") + _dumps(array[start : start + step])[1:-1]
        yield b"]"

    return write


def _base64(array: Float32Array) -> Iterator[bytes]:
    data = b64encode(np.ascontiguousarray(array, "<f4").data)
    yield b'{"dtype":"float32","shape":' + orjson.dumps(array.shape) + b',"data":"' + data + b'"}'


def _dumps(array: Float32Array | Int32Array) -> bytes:
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)


def _join(parts: Iterable[bytes], min_bytes: int) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= min_bytes:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
