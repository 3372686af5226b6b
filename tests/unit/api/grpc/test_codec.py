"""Work that leaves the event loop, and work that does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest

from electra_serve.api.grpc.codec import (
    INLINE_BYTES,
    INLINE_FLOATS,
    INLINE_RESPONSE_BYTES,
    MAX_INLINE_BYTES,
    MAX_INLINE_FIELDS,
    MAX_INLINE_TENSORS,
    Codec,
)
from electra_serve.errors import PayloadTooLarge
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.encode import EncodeResult
from electra_serve.tensors import Output, RowOutput, TextInput, TokenInput

T = TypeVar("T")


class CountingThread(WorkThread):
    """Counts what it runs."""

    def __init__(self) -> None:
        super().__init__("decoder")
        self.runs = 0

    async def run(self, client: str, work: Callable[[], T]) -> T:
        self.runs += 1
        return await super().run(client, work)


@pytest.fixture
def thread() -> CountingThread:
    return CountingThread()


@pytest.fixture
def codec(thread: CountingThread) -> Codec:
    return Codec(thread, max_sequences=256, max_response_bytes=2 * INLINE_RESPONSE_BYTES)


def one_tensor(size: int) -> bytes:
    """A message of few fields, of so many bytes."""
    ids = np.ones((size - 64) // 4, np.int32)
    data = pb.EncodeRequest(tokens=pb.TokenInput(token_ids=[from_integers(ids)])).SerializeToString()
    return data + b"\x12" + bytes([size - len(data) - 2]) + b"m" * (size - len(data) - 2)


def rows(count: int) -> pb.EncodeRequest:
    return pb.EncodeRequest(tokens=pb.TokenInput(token_ids=[from_integers(np.ones(1, np.int32))] * count))


@pytest.mark.parametrize(
    ("data", "runs"),
    [
        pytest.param(b"\x12\x00" * (INLINE_BYTES // 2), 0, id="small, many fields"),
        pytest.param(b"\x12\x00" * (INLINE_BYTES // 2 + 1), 1, id="larger, many fields"),
        pytest.param(b"\x12\x00" * MAX_INLINE_FIELDS + b"\x12\x00" * 2000, 1, id="more fields"),
        pytest.param(one_tensor(MAX_INLINE_BYTES), 0, id="few fields"),
        pytest.param(one_tensor(MAX_INLINE_BYTES + 1), 1, id="few fields, large"),
    ],
)
async def test_messages_of_many_fields_or_bytes_leave_the_event_loop(
    data: bytes, runs: int, codec: Codec, thread: CountingThread
) -> None:
    message = await codec.parse(pb.EncodeRequest, data, "a")
    assert message == pb.EncodeRequest.FromString(data)
    assert thread.runs == runs


@pytest.mark.parametrize(("count", "runs"), [(MAX_INLINE_TENSORS, 0), (MAX_INLINE_TENSORS + 1, 1)])
async def test_many_tensors_and_texts_leave_it(count: int, runs: int, codec: Codec, thread: CountingThread) -> None:
    tokens = await codec.to_input(rows(count), MAX_INLINE_BYTES, "a")
    assert isinstance(tokens, TokenInput)
    assert len(tokens.token_ids) == count
    assert thread.runs == runs
    message = pb.EncodeRequest(text=pb.TextInput(texts=[pb.Text(first="a")] * count))
    assert await codec.to_input(message, MAX_INLINE_BYTES, "a") == TextInput(("a",) * count)
    assert thread.runs == 2 * runs


@pytest.mark.parametrize(("size", "runs"), [(MAX_INLINE_BYTES, 0), (MAX_INLINE_BYTES + 1, 1)])
async def test_large_requests_leave_it(size: int, runs: int, codec: Codec, thread: CountingThread) -> None:
    await codec.to_input(rows(1), size, "a")
    query, documents = await codec.to_documents(pb.RerankRequest(query="q", documents=["a"]), size, "a")
    assert (query, documents) == ("q", ("a",))
    assert thread.runs == 2 * runs


@pytest.mark.parametrize(("floats", "runs"), [(INLINE_FLOATS, 0), (INLINE_FLOATS + 1, 1)])
async def test_large_results_leave_it(floats: int, runs: int, codec: Codec, thread: CountingThread) -> None:
    row = RowOutput(pooled_output=np.zeros(floats, np.float32))
    parts = await codec.render(EncodeResult("m", frozenset({Output.POOLED}), (row,), (1,), (False,)), "r", "a")
    assert pb.EncodeResponse.FromString(b"".join(parts)).pooled_output.shape == [1, floats]
    assert thread.runs == runs


@pytest.mark.parametrize(("size", "runs"), [(INLINE_RESPONSE_BYTES, 0), (INLINE_RESPONSE_BYTES + 1, 1)])
async def test_large_responses_are_joined_off_it(size: int, runs: int, codec: Codec, thread: CountingThread) -> None:
    assert await codec.join([b"a" * (size - 1), b"b"], "a") == b"a" * (size - 1) + b"b"
    assert thread.runs == runs


async def test_a_response_that_is_too_large_is_rejected(codec: Codec) -> None:
    with pytest.raises(PayloadTooLarge):
        await codec.join([bytes(2 * INLINE_RESPONSE_BYTES + 1)], "a")
