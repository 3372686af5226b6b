"""Bounds of requests before they are parsed, and work that leaves the event loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import pytest

from electra_serve.api.grpc.oip.codec import InferCodec
from electra_serve.api.grpc.oip.decode import to_parameters
from electra_serve.api.oip.decode import PARAMETERS, Decoded
from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from electra_serve.serving.encode import EncodeRequest, EncodeResult
from electra_serve.tensors import IntArray, Output, RowOutput, TextInput
from tests.unit.api.grpc.oip.conftest import InputTensor, ids
from tests.unit.api.grpc.test_codec import CountingThread

ROWS: Final = 256
LENGTH: Final = 512
UNKNOWN_FIELD: Final = b"\xfa\x01\x02hi"


@pytest.fixture
def thread() -> CountingThread:
    return CountingThread()


@pytest.fixture
def codec(thread: CountingThread) -> InferCodec:
    return InferCodec(thread, max_sequences=ROWS)


def typed(*names: str) -> pb.ModelInferRequest:
    """The largest request of a model with 512 positions, with ids of three bytes."""
    contents = pb.InferTensorContents(int64_contents=np.full(ROWS * LENGTH, 30_000).tolist())
    return pb.ModelInferRequest(
        model_name="m",
        inputs=[InputTensor(name=name, datatype="INT64", shape=[ROWS, LENGTH], contents=contents) for name in names],
    )


async def test_the_largest_typed_request_passes(codec: InferCodec, thread: CountingThread) -> None:
    names = ("token_ids", "segment_ids", "padding_mask")
    received = await codec.parse(typed(*names).SerializeToString(), "a")
    tensors = (await codec.decode(received, "m", "a")).inputs
    assert [tensor.header.name for tensor in tensors] == list(names)
    for tensor in tensors:
        values: IntArray = np.asarray(tensor.data)
        assert (values == 30_000).all()
    assert thread.runs == 2


@pytest.mark.parametrize(
    "field",
    [
        b"\x2a\x00",  # an empty input
        b"\x2a\x02\x2a\x00",  # an input with empty contents
        b"\x2a\x04\x22\x02\x0a\x00",  # an input with a parameter
        b"\x22\x02\x0a\x00",  # a parameter
        b"\x32\x00",  # an output
        b"\x3a\x00",  # raw contents
        b"\x2a\x04\x2a\x02\x42\x00",  # a typed text
        b"\x2a\x04\x2a\x02\x18\x01",  # a number that is not packed
        UNKNOWN_FIELD,
    ],
)
async def test_millions_of_tiny_fields_are_rejected_unparsed(
    codec: InferCodec, monkeypatch: pytest.MonkeyPatch, field: bytes
) -> None:
    def never(_: object) -> None:
        pytest.fail("parsed")

    data = field * (2**22 // len(field))
    monkeypatch.setattr("electra_serve.api.grpc.parsing.reject_unknown_fields", never)
    with pytest.raises(PayloadTooLarge, match="a message takes at most"):
        await codec.parse(data, "a")


async def test_numbers_are_bounded_too(codec: InferCodec) -> None:
    contents = pb.InferTensorContents(bool_contents=[True] * 2**21).SerializeToString()
    message = pb.ModelInferRequest(inputs=[InputTensor(contents=pb.InferTensorContents.FromString(contents))])
    with pytest.raises(PayloadTooLarge, match="a message takes at most"):
        await codec.parse(message.SerializeToString(), "a")


async def test_an_id_of_any_length_is_kept(codec: InferCodec) -> None:
    for length in (0, 1, 1000, 200_000):
        request_id = "é" * length
        data = ids([1], id=request_id).SerializeToString()
        assert (await codec.parse(data, "a")).id == request_id


async def test_a_name_too_long_is_cut(codec: InferCodec) -> None:
    data = pb.ModelInferRequest(model_name="m" * 100_000).SerializeToString()
    assert len((await codec.parse(data, "a")).message.model_name) < 1000


@pytest.mark.parametrize("position", [lambda m: m, lambda m: m.inputs[0], lambda m: m.outputs[0]])
async def test_fields_of_newer_clients_are_ignored(
    codec: InferCodec, position: Callable[[pb.ModelInferRequest], pb.ModelInferRequest]
) -> None:
    message = ids([1, 2])
    position(message).MergeFromString(UNKNOWN_FIELD)
    received = await codec.parse(message.SerializeToString(), "a")
    [tensor] = (await codec.decode(received, "m", "a")).inputs
    assert np.asarray(tensor.data).tolist() == [1, 2]


@pytest.mark.parametrize(("raw", "length", "runs"), [(True, 64, 0), (True, 512, 2), (False, 64, 0), (False, 4096, 1)])
async def test_large_requests_leave_the_event_loop(
    codec: InferCodec, thread: CountingThread, raw: bool, length: int, runs: int
) -> None:
    message = ids(*[[1] * length] * 32)
    if not raw:
        message = pb.ModelInferRequest(inputs=[InputTensor(name="token_ids", datatype="INT64", shape=[1, length])])
        message.inputs[0].contents.int64_contents.extend([1] * length)
    await codec.decode(await codec.parse(message.SerializeToString(), "a"), "m", "a")
    assert thread.runs == runs


async def test_sizes_are_not_measured_by_serializing(codec: InferCodec) -> None:
    data = ids([1, 2]).SerializeToString()
    assert (await codec.parse(data, "a")).size == len(data)


async def test_parameters_that_nothing_reads_are_not_decoded() -> None:
    message = ids([1])
    message.parameters["priority"].int64_param = 1
    message.parameters["truncate"].SetInParent()
    message.parameters["headers"].string_param = "x"
    assert to_parameters(message.parameters, PARAMETERS) == {"priority": 1}
    assert list(message.parameters) != ["priority"]


async def test_a_response_with_a_long_id_leaves_the_event_loop(codec: InferCodec, thread: CountingThread) -> None:
    result = EncodeResult("m", frozenset({Output.CLS}), (RowOutput(cls_output=np.ones(8, np.float32)),), (1,), (False,))
    decoded = Decoded(EncodeRequest(TextInput([])), ("cls_output",), {})
    for length, runs in ((1000, 0), (200_000, 1)):
        received = replace(await codec.parse(ids([1]).SerializeToString(), "a"), id="x" * length)
        await codec.render(result, decoded, received, {}, "a")
        assert thread.runs == runs


@pytest.mark.parametrize(
    ("datatype", "field", "limits"),
    [
        ("INT8", "int_contents", (-128, 127)),
        ("INT16", "int_contents", (-(2**15), 2**15 - 1)),
        ("INT32", "int_contents", (-(2**31), 2**31 - 1)),
        ("INT64", "int64_contents", (-(2**63), 2**63 - 1)),
        ("UINT8", "uint_contents", (0, 255)),
        ("UINT16", "uint_contents", (0, 2**16 - 1)),
        ("UINT32", "uint_contents", (0, 2**32 - 1)),
        ("UINT64", "uint64_contents", (0, 2**64 - 1)),
    ],
)
async def test_typed_numbers_are_of_their_datatype(
    codec: InferCodec, datatype: str, field: str, limits: tuple[int, int]
) -> None:
    def request(number: int) -> bytes:
        contents = pb.InferTensorContents(**{field: [number]})  # type: ignore[arg-type]  # lists of numbers all
        tensor = InputTensor(name="token_ids", datatype=datatype, shape=[1], contents=contents)
        return pb.ModelInferRequest(model_name="m", inputs=[tensor]).SerializeToString()

    for number in limits:
        [tensor] = (await codec.decode(await codec.parse(request(number), "a"), "m", "a")).inputs
        assert np.asarray(tensor.data).tolist() == [number]
    if datatype in {"INT8", "INT16", "UINT8", "UINT16"}:  # contents have wider numbers
        for number in (limits[1] + 1, *((limits[0] - 1,) if limits[0] else ())):
            with pytest.raises(InvalidInput, match=f"numbers of {datatype}"):
                await codec.decode(await codec.parse(request(number), "a"), "m", "a")


@pytest.mark.parametrize(("lengths", "runs"), [([4, 4], 0), ([512] + [1] * 255, 1)])
async def test_padding_counts_as_work(codec: InferCodec, thread: CountingThread, lengths: list[int], runs: int) -> None:
    rows = tuple(RowOutput(sequence_output=np.ones((length, 8), np.float32)) for length in lengths)
    result = EncodeResult("m", frozenset({Output.SEQUENCE}), rows, tuple(lengths), (False,) * len(rows))
    decoded = Decoded(EncodeRequest(TextInput([])), ("sequence_output",), {})
    received = await codec.parse(ids([1]).SerializeToString(), "a")
    parts = await codec.render(result, decoded, received, {}, "a")
    response = pb.ModelInferResponse.FromString(b"".join(parts))
    assert list(response.outputs[0].shape) == [len(lengths), max(lengths), 8]
    assert thread.runs == runs
