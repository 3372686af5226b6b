"""Conversions between numpy arrays and `Tensor` messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_floats, from_integers, to_floats


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4)))
def test_floats_survive_the_round_trip_bit_by_bit(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    returned = to_floats(from_floats(array))
    assert returned.shape == array.shape
    assert returned.tobytes() == array.tobytes()


def test_bytes_are_little_endian_and_row_major() -> None:
    assert from_floats(np.array([[1.0], [2.0]], ">f4")).data == b"\x00\x00\x80\x3f\x00\x00\x00\x40"
    transposed = np.array([[1, 2], [3, 4]], np.int32).T
    assert from_integers(transposed).data == np.array([1, 3, 2, 4], "<i4").tobytes()


@pytest.mark.parametrize(
    ("dtype", "name", "itemsize"), [("i1", "INT64", 8), ("i4", "INT32", 4), (">i4", "INT64", 8), ("i8", "INT64", 8)]
)
def test_integers_have_the_type_of_their_width(dtype: str, name: str, itemsize: int) -> None:
    message = from_integers(np.array([1, -2], dtype))
    assert message.dtype == pb.DataType.Value(f"DATA_TYPE_{name}")
    assert list(message.shape) == [2]
    assert np.frombuffer(message.data, f"<i{itemsize}").tolist() == [1, -2]


def test_outputs_of_another_type_or_size_are_rejected() -> None:
    with pytest.raises(ValueError, match="received DATA_TYPE_INT32"):
        to_floats(from_integers(np.array([1], np.int32)))
    with pytest.raises(ValueError, match="reshape"):
        to_floats(pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2], data=b"1234"))
