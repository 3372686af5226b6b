"""Tensors as bytes and as numbers, in requests and in responses."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from electra_serve.api.grpc.oip.decode import CONTENTS, to_infer
from electra_serve.api.grpc.oip.render import from_tensors
from electra_serve.api.oip.outputs import to_bytes, to_tensors
from electra_serve.api.oip.tensors import INTEGERS
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from electra_serve.serving.encode import EncodeResult
from electra_serve.tensors import Output, RowOutput
from tests.unit.api.grpc.oip.conftest import InputTensor

NAMES: Final = ("last_hidden_state", "token_counts", "mean_output", "sequence_output")


@st.composite
def integers(draw: st.DrawFn) -> tuple[str, Any]:
    """A datatype, and a rectangle of its numbers."""
    datatype = draw(st.sampled_from(sorted(INTEGERS)))
    high = 1 if datatype == "BOOL" else None
    elements = st.integers(0, 1) if high else None
    shape = draw(st.one_of(st.tuples(st.integers(0, 9)), st.tuples(st.integers(0, 8), st.integers(0, 9))))
    return datatype, draw(arrays.arrays(INTEGERS[datatype], shape, elements=elements))


def typed(datatype: str, values: list[Any]) -> pb.InferTensorContents:
    return pb.InferTensorContents(**{CONTENTS[datatype][0]: values})


@given(integers(), st.sampled_from(["token_ids", "input_ids", "segment_ids", "attention_mask"]), st.booleans())
def test_integers_are_read_as_they_were_written(tensor: tuple[str, Any], name: str, raw: bool) -> None:
    datatype, array = tensor
    message = pb.ModelInferRequest(inputs=[InputTensor(name=name, datatype=datatype, shape=array.shape)])
    if raw:
        message.raw_input_contents.append(array.tobytes())
    else:
        message.inputs[0].contents.CopyFrom(typed(datatype, array.ravel().tolist()))
    [read] = to_infer(message, "m", 8).inputs
    assert (read.header.name, read.header.datatype, read.header.shape) == (name, datatype, array.shape)
    np.testing.assert_array_equal(np.asarray(read.data), array.ravel())


TEXTS = st.lists(st.text(), min_size=0, max_size=8)


@given(TEXTS, st.booleans(), st.booleans())
def test_texts_are_read_as_they_were_written(texts: list[str], raw: bool, pairs: bool) -> None:
    flat = [part.encode() for text in texts for part in ((text, text[::-1]) if pairs else (text,))]
    shape = (len(texts), 2 if pairs else 1)
    message = pb.ModelInferRequest(inputs=[InputTensor(name="text", datatype="BYTES", shape=shape)])
    if raw:
        message.raw_input_contents.append(b"".join(len(part).to_bytes(4, "little") + part for part in flat))
    else:
        message.inputs[0].contents.CopyFrom(typed("BYTES", flat))
    [read] = to_infer(message, "m", 8).inputs
    assert list(read.data) == [part.decode() for part in flat]


@st.composite
def results(draw: st.DrawFn) -> EncodeResult:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    rows = []
    for length in lengths:
        computed = draw(st.integers(1, length))
        hidden = draw(arrays.arrays(np.float32, (computed, 3)))
        rows.append(RowOutput(sequence_output=hidden, mean_output=hidden[0], length=length))
    return EncodeResult(
        model="tiny",
        outputs=frozenset({Output.SEQUENCE, Output.MEAN}),
        rows=tuple(rows),
        row_tokens=tuple(lengths),
        truncated=(False,) * len(rows),
    )


@given(results(), st.booleans(), st.text())
def test_outputs_are_written_as_they_are(result: EncodeResult, raw: bool, request_id: str) -> None:
    parts = from_tensors(result.model, request_id, to_bytes(result, NAMES), raw=raw)
    response = pb.ModelInferResponse.FromString(b"".join(parts))
    assert (response.model_name, response.model_version, response.id) == ("tiny", "1", request_id)
    assert [tensor.name for tensor in response.outputs] == list(NAMES)
    assert len(response.raw_output_contents) == (len(NAMES) if raw else 0)
    for index, (tensor, expected) in enumerate(zip(response.outputs, to_tensors(result, NAMES), strict=True)):
        assert tensor.HasField("contents") is not raw
        dtype = expected.array.dtype
        values = (
            np.frombuffer(response.raw_output_contents[index], dtype)
            if raw
            else np.array(tensor.contents.fp32_contents or tensor.contents.int_contents, dtype)
        )
        assert tensor.datatype == expected.datatype
        np.testing.assert_array_equal(values.reshape(tensor.shape), expected.array)


def test_rows_are_written_from_their_own_memory() -> None:
    hidden = np.ones((5, 3), np.float32)
    result = EncodeResult(
        "m", frozenset({Output.SEQUENCE}), (RowOutput(sequence_output=hidden), RowOutput(sequence_output=hidden[:2])),
        (5, 2), (False, False),
    )  # fmt: skip
    parts = from_tensors("m", "", to_bytes(result, ["sequence_output"]), raw=True)
    views = [part for part in parts if isinstance(part, memoryview)]
    assert [len(view) for view in views] == [60, 24, 36]
    assert all(np.shares_memory(np.frombuffer(view, np.float32), hidden) for view in views[:2])
    assert bytes(views[2]) == bytes(36)


@pytest.mark.parametrize("datatype", sorted(INTEGERS))
def test_contents_of_every_datatype_have_a_field(datatype: str) -> None:
    field, dtype = CONTENTS[datatype]
    assert field in pb.InferTensorContents.DESCRIPTOR.fields_by_name
    assert np.can_cast(INTEGERS[datatype], dtype)
