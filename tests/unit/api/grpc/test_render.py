"""Responses that are assembled without protobuf are the same as protobuf's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from electra_serve.api.grpc.render import from_result, in_stream, join
from electra_serve.errors import PayloadTooLarge
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_floats, to_floats
from electra_serve.serving.encode import EncodeResult
from electra_serve.tensors import HEAD_OUTPUTS, POSITION_OUTPUTS, Float32Array, Output, RowOutput
from tests.fake_service import HIDDEN_DIM, LABELS, row_output

ANY_SIZE = 2**30
ALL = frozenset(Output)


def result(*rows: list[int], outputs: frozenset[Output] = ALL) -> EncodeResult:
    return EncodeResult(
        "tiny",
        outputs,
        tuple(row_output(row, outputs) for row in rows),
        tuple(map(len, rows)),
        tuple(False for _ in rows),
    )


@pytest.mark.parametrize("output", list(Output))
def test_a_response_has_only_the_requested_output(output: Output) -> None:
    asked = result([1, 2], [3], outputs=frozenset({output}))
    message = pb.EncodeResponse.FromString(join(from_result(asked, "r1"), ANY_SIZE))
    assert {f.name for f, _ in message.ListFields()} == {"request_id", "model", "usage", "truncated", output.value}
    assert (message.request_id, message.model, message.usage.sequences, message.usage.tokens) == ("r1", "tiny", 2, 3)
    assert list(message.truncated) == [False, False]
    width = len(LABELS) if output in HEAD_OUTPUTS else HIDDEN_DIM
    if output in POSITION_OUTPUTS:
        sequences = [to_floats(tensor).tolist() for tensor in getattr(message, output.value)]
        assert sequences == [[[1.0] * width, [2.0] * width], [[3.0] * width]]
    else:
        first = 1.5 if output in {Output.MEAN, Output.EMBEDDING} else 1.0
        np.testing.assert_array_equal(to_floats(getattr(message, output.value)), [[first] * width, [3.0] * width])


@given(st.lists(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=70)), min_size=1, max_size=3))
def test_rows_are_what_protobuf_reads(arrays: list[Float32Array]) -> None:
    rows = tuple(RowOutput(sequence_output=array) for array in arrays)
    asked = EncodeResult("tiny", frozenset({Output.SEQUENCE}), rows, (1, 2)[: len(rows)], tuple(False for _ in rows))
    message = pb.EncodeResponse.FromString(join(from_result(asked, "r1"), ANY_SIZE))
    assert list(message.sequence_output) == [from_floats(array) for array in arrays]


def test_a_row_that_is_a_view_of_a_batch_is_written_in_order() -> None:
    batch = np.arange(12, dtype=np.float32).reshape(2, 3, 2)  # (B, S, H)
    rows = (RowOutput(sequence_output=batch[1, ::2]), RowOutput(sequence_output=batch[0].T))
    asked = EncodeResult("tiny", frozenset({Output.SEQUENCE}), rows, (1, 0), (False, False))
    message = pb.EncodeResponse.FromString(join(from_result(asked, ""), ANY_SIZE))
    assert to_floats(message.sequence_output[0]).tolist() == [[6, 7], [10, 11]]
    assert to_floats(message.sequence_output[1]).tolist() == [[0, 2, 4], [1, 3, 5]]


def test_a_response_in_a_stream_is_the_same_with_its_id() -> None:
    parts = from_result(result([1, 2] * 50, [3]), "r1")
    message = pb.EncodeStreamResponse.FromString(join(in_stream(parts, "r1"), ANY_SIZE))
    assert message.request_id == "r1"
    assert message.response == pb.EncodeResponse.FromString(join(parts, ANY_SIZE))


def test_the_estimated_size_of_a_response_is_close() -> None:
    parts = from_result(result([1, 2]), "r1")
    size = len(join(parts, ANY_SIZE))
    assert len(join(parts, size)) == size
    with pytest.raises(PayloadTooLarge, match="request fewer sequences or outputs"):
        join(parts, size - 1)
