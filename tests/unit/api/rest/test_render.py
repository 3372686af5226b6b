from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from starlette.types import Message

from electra_serve.api.rest.protocol import ABORT
from electra_serve.api.rest.render import (
    CHUNK_BYTES,
    INLINE_FLOATS,
    PIECE_FLOATS,
    EncodedResponse,
    json_response,
    pieces,
    render,
)
from electra_serve.serving.encode import EncodeResult
from electra_serve.tensors import Float32Array, Output, Outputs, RowOutput
from tests.fakes import transit_budget
from tests.unit.api.rest.asgi import Wire, http_scope
from tests.unit.api.rest.models import READY_MODEL

T = TypeVar("T")

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, 3, elements=finite)


@st.composite
def results(draw: st.DrawFn) -> EncodeResult:
    outputs = draw(st.frozensets(st.sampled_from(Output), min_size=1))
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    rows = [draw(_row(outputs, length)) for length in lengths]
    truncated = tuple(draw(st.booleans()) for _ in rows)
    return EncodeResult(
        draw(st.text()), outputs, tuple(rows), tuple(draw(st.integers(0, 2**31)) for _ in rows), truncated
    )


@st.composite
def _row(draw: st.DrawFn, outputs: Outputs, length: int) -> RowOutput:
    return RowOutput(
        draw(hnp.arrays(np.float32, (length, 3), elements=finite)) if Output.SEQUENCE in outputs else None,
        draw(vectors) if Output.POOLED in outputs else None,
        draw(vectors) if Output.CLS in outputs else None,
        draw(vectors) if Output.MEAN in outputs else None,
        draw(vectors) if Output.EMBEDDING in outputs else None,
        draw(vectors) if Output.LOGITS in outputs else None,
        draw(hnp.arrays(np.float32, (length, 3), elements=finite)) if Output.TOKEN_LOGITS in outputs else None,
    )


def one_shot(result: EncodeResult) -> bytes:
    """Returns the whole response."""
    arrays = {output.value: [row.get(output) for row in result.rows] for output in Output if output in result.outputs}
    usage = {"sequences": len(result.rows), "tokens": result.tokens}
    content = {"model": result.model, **arrays, "usage": usage, "truncated": result.truncated}
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def from_base64(written: dict[str, Any]) -> Float32Array:
    assert written["dtype"] == "float32"
    return np.frombuffer(base64.b64decode(written["data"]), "<f4").reshape(written["shape"])


def large(rows: int = 1, length: int = 3) -> EncodeResult:
    """Rows of `length` positions, so wide that three of them are more than one piece."""
    wide = np.arange(length * (PIECE_FLOATS // 2), dtype=np.float32).reshape(length, -1)  # (T, H)
    outputs = frozenset({Output.SEQUENCE})
    return EncodeResult("m", outputs, (RowOutput(wide),) * rows, (length,) * rows, (False,) * rows)


VECTOR = np.zeros(2, np.float32)
ROW = np.zeros((1, 2), np.float32)
ZEROS = RowOutput(ROW, VECTOR, VECTOR, VECTOR, VECTOR, VECTOR, ROW)


async def on_thread(work: Callable[[], T]) -> T:
    """Runs work on a thread, as the service does."""
    return await asyncio.to_thread(work)


@given(results(), st.integers(1, 20))
def test_pieces_are_one_shot_cut(result: EncodeResult, max_floats: int) -> None:
    written = list(pieces(result, "float", max_floats=max_floats))
    assert b"".join(written) == one_shot(result)
    assert max(piece.count(b".") for piece in written[1:-1]) <= max(max_floats, 3)


@given(results())
async def test_numbers_come_back_as_they_were(result: EncodeResult) -> None:
    as_float = orjson.loads(b"".join(await render(result, "float", on_thread)))
    as_base64 = orjson.loads(b"".join(await render(result, "base64", on_thread)))
    for output in result.outputs:
        for index, row in enumerate(result.rows):
            np.testing.assert_array_equal(np.float32(as_float[output][index]), row.get(output))
            np.testing.assert_array_equal(from_base64(as_base64[output][index]), row.get(output))


async def test_members_come_in_one_order() -> None:
    result = EncodeResult("m", frozenset(Output), (ZEROS,), (1,), (True,))
    for encoding_format in ("float", "base64"):
        content = orjson.loads(b"".join(await render(result, encoding_format, on_thread)))
        assert list(content) == ["model", *Output, "usage", "truncated"]
        assert content["usage"] == {"sequences": 1, "tokens": 1}
        assert content["truncated"] == [True]


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
async def test_views_into_a_batch_are_written_like_copies(encoding_format: str) -> None:
    batch = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    views = (batch[1, :2], batch[:, 0, 1], batch.T[0, 1])  # the last two are strided
    results = [
        EncodeResult("m", frozenset({Output.CLS}), (RowOutput(cls_output=array),), (1,), (False,))
        for view in views
        for array in (view, view.copy())
    ]
    written = [b"".join(pieces(result, "base64" if encoding_format == "base64" else "float")) for result in results]
    assert written[::2] == written[1::2]


async def test_small_responses_are_one_chunk_and_large_ones_several() -> None:
    assert len(await render(large(length=2), "float", on_thread)) == 1
    chunks = await render(large(rows=4), "float", on_thread)
    assert len(chunks) > 1
    assert all(len(chunk) >= CHUNK_BYTES for chunk in chunks[:-1])
    assert b"".join(chunks) == one_shot(large(rows=4))


async def test_only_large_responses_leave_the_event_loop() -> None:
    seen: list[str] = []

    class Tattling(RowOutput):
        def get(self, output: Output) -> Float32Array:
            seen.append(threading.current_thread().name)
            return super().get(output)

    async def threads(floats: int) -> set[str]:
        seen.clear()
        length, result = 1, large()
        tattling = Tattling(np.zeros((1, floats), np.float32))
        await render(EncodeResult("m", result.outputs, (tattling,), (length,), (False,)), "float", on_thread)
        return set(seen)

    loop = threading.current_thread().name
    assert await threads(INLINE_FLOATS) == {loop}
    assert loop not in await threads(INLINE_FLOATS + 1)


async def test_the_event_loop_runs_while_a_large_response_is_written() -> None:
    writing = asyncio.ensure_future(render(large(rows=4), "float", on_thread))
    turns = 0
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1


@pytest.mark.parametrize("chunks", [[b"{}"], [b'{"a"', b":", b"1}"]])
async def test_chunks_follow_one_another_under_one_length(chunks: list[bytes]) -> None:
    wire = Wire()
    budget = transit_budget()
    reservation = budget.reserve("a", 1000)
    await wire.run(EncodedResponse(chunks, send_timeout_s=5, reservation=reservation), http_scope())
    assert budget.used_bytes == 0
    assert wire.status == 200
    assert wire.headers == {"content-length": str(len(b"".join(chunks))), "content-type": "application/json"}
    assert [message["body"] for message in wire.sent[1:]] == chunks
    assert [message["more_body"] for message in wire.sent[1:]] == [True] * (len(chunks) - 1) + [False]


def test_dataclasses_and_enums_are_json() -> None:
    assert b'"state":"ready"' in json_response(READY_MODEL).body


async def test_chunks_are_released_as_they_are_sent() -> None:
    budget = transit_budget()
    held: list[int] = []

    async def send(message: Message) -> None:
        held.append(budget.used_bytes)

    chunks = [b"1" * 10, b"2" * 20, b"3" * 30]
    response = EncodedResponse(chunks, send_timeout_s=5, reservation=budget.reserve("a", 1000))
    await response(http_scope(), never_received, send)
    assert held == [1000, 60, 50, 30]
    assert budget.used_bytes == 0


async def test_a_client_that_does_not_read_has_its_time() -> None:
    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    response = EncodedResponse([b"{}"], send_timeout_s=0.01, reservation=transit_budget().reserve("a", 2))
    with pytest.raises(TimeoutError):
        await response(http_scope(), never_received, send)


async def test_a_client_that_does_not_read_is_disconnected_without_an_error() -> None:
    """The client's fault, which is not logged as an exception."""
    disconnected = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await disconnected.wait()

    response = EncodedResponse([b"{}", b"{}"], send_timeout_s=0.01, reservation=transit_budget().reserve("a", 4))
    await response({**http_scope(), "state": {ABORT: disconnected.set}}, never_received, send)
    assert disconnected.is_set()


async def never_received() -> Message:
    raise AssertionError("a response reads nothing")
