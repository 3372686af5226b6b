"""Tensors to rows: every way in which bytes and shape can disagree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from electra_serve.api.grpc.tensor import from_floats, from_integers, to_floats, to_rows
from electra_serve.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from tests.unit.api.grpc.messages import UNKNOWN_FIELD, tensor

INT32, INT64, FLOAT32 = pb.DATA_TYPE_INT32, pb.DATA_TYPE_INT64, pb.DATA_TYPE_FLOAT32
SIDE = st.integers(1, 5)


@given(hnp.arrays(st.sampled_from([np.int32, np.int64]), st.one_of(st.tuples(SIDE), st.tuples(SIDE, SIDE))))
def test_integers_survive_the_round_trip(array: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> None:
    rows = to_rows([from_integers(array)], "token_ids", max_rows=5)
    expected = array.reshape(-1, array.shape[-1])
    assert [row.dtype for row in rows] == [array.dtype] * len(expected)
    np.testing.assert_array_equal(rows, expected)


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4)))
def test_floats_survive_the_round_trip_bit_by_bit(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    returned = to_floats(from_floats(array))
    assert returned.shape == array.shape
    assert returned.tobytes() == array.tobytes()


def test_bytes_are_little_endian_and_row_major() -> None:
    assert from_floats(np.array([[1.0], [2.0]], ">f4")).data == b"\x00\x00\x80\x3f\x00\x00\x00\x40"
    transposed = np.array([[1, 2], [3, 4]], np.int32).T
    assert [row.tolist() for row in to_rows([from_integers(transposed)], "token_ids", 2)] == [[1, 3], [2, 4]]


def test_ranks_mix_and_rows_keep_their_order() -> None:
    rows = to_rows([tensor([1, 2, 3]), tensor([[4, 5], [6, 7]]), tensor([8])], "token_ids", max_rows=4)
    assert [row.tolist() for row in rows] == [[1, 2, 3], [4, 5], [6, 7], [8]]


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (pb.Tensor(shape=[1], data=b"1234"), "received DATA_TYPE_UNSPECIFIED"),
        (pb.Tensor(dtype=FLOAT32, shape=[1], data=b"1234"), "received DATA_TYPE_FLOAT32"),
        (pb.Tensor(dtype=99, shape=[1], data=b"1234"), "received 99"),  # type: ignore[arg-type]
        (pb.Tensor(dtype=INT32, data=b"1234"), "1 or 2 dimensions; received 0"),
        (pb.Tensor(dtype=INT32, shape=[1, 1, 1], data=b"1234"), "1 or 2 dimensions; received 3"),
        (pb.Tensor(dtype=INT32, shape=[2**62, 0]), "at least 1; received shape [4611686018427387904, 0]"),
        (pb.Tensor(dtype=INT32, shape=[-1], data=b"1234"), "at least 1; received shape [-1]"),
        (pb.Tensor(dtype=INT32, shape=[-1, -1], data=b"1234"), "at least 1; received shape [-1, -1]"),
        (pb.Tensor(dtype=INT32, shape=[2], data=b"1234"), "8 bytes for shape [2] of DATA_TYPE_INT32; received 4"),
        (pb.Tensor(dtype=INT64, shape=[1], data=b"1234"), "8 bytes for shape [1] of DATA_TYPE_INT64; received 4"),
        (pb.Tensor(dtype=INT32, shape=[1], data=b"12345"), "4 bytes for shape [1] of DATA_TYPE_INT32; received 5"),
        (pb.Tensor(dtype=INT32, shape=[2**62, 2**62], data=b"1234"), "received 4"),
        (pb.Tensor(dtype=INT32, shape=[2**62, 4]), "received 0"),
    ],
)
def test_a_broken_tensor_is_refused_and_named(broken: pb.Tensor, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        to_rows([tensor([1]), broken], "segment_ids", max_rows=8)
    assert text in caught.value.message
    assert caught.value.field == "segment_ids[1]"


def test_an_unknown_field_inside_a_tensor_is_refused_and_named() -> None:
    with pytest.raises(MalformedRequest) as caught:
        to_rows([pb.Tensor.FromString(tensor([1]).SerializeToString() + UNKNOWN_FIELD)], "token_ids", 8)
    assert caught.value.field == "token_ids[0]"


@pytest.mark.parametrize("tensors", [[tensor([1])] * 3, [tensor([[1], [2], [3]])], [tensor([[1], [2]]), tensor([3])]])
def test_rows_are_counted_from_both_sides_of_the_bound(tensors: list[pb.Tensor]) -> None:
    assert len(to_rows(tensors, "token_ids", max_rows=3)) == 3
    with pytest.raises(PayloadTooLarge):
        to_rows(tensors, "token_ids", max_rows=2)


@given(st.integers(0, 4), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3), st.binary(max_size=64))
def test_any_tensor_is_rows_or_refused(dtype: int, shape: list[int], data: bytes) -> None:
    message = pb.Tensor(dtype=dtype, shape=shape, data=data)  # type: ignore[arg-type]
    try:
        rows = to_rows([message], "token_ids", max_rows=4)
    except (InvalidInput, PayloadTooLarge):
        return
    assert sum(row.nbytes for row in rows) == len(data)


def test_answers_of_another_type_or_size_are_refused() -> None:
    with pytest.raises(ValueError, match="received DATA_TYPE_INT32"):
        to_floats(tensor([1]))
    with pytest.raises(ValueError, match="reshape"):
        to_floats(pb.Tensor(dtype=FLOAT32, shape=[2], data=b"1234"))
