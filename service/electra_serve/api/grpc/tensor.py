"""`Tensor` messages to numpy arrays and back: little-endian, row-major, nothing trusted.

Counts and shapes are checked before any array is made, so what a request costs is bounded by its own bytes.
Server and client both use this module: it knows the messages, numpy and the error taxonomy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from electra_serve.api.grpc.parsing import refuse_unknown_fields
from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.tensors import Float32Array, IntArray

INTEGER_TYPES: Final[Mapping[int, np.dtype[Any]]] = MappingProxyType(
    {pb.DATA_TYPE_INT32: np.dtype("<i4"), pb.DATA_TYPE_INT64: np.dtype("<i8")}
)
FLOAT32: Final = np.dtype("<f4")


def to_rows(tensors: Sequence[pb.Tensor], field: str, max_rows: int) -> list[IntArray]:
    """Splits tensors into sequences: one for each tensor of rank 1, shape[0] for each of rank 2.

    Args:
        tensors: As received.
        field: The request field they came in, for errors.
        max_rows: Most sequences to split off.

    Returns:
        One (T,) int32 or int64 array per sequence, read-only views of the tensors' bytes.

    Raises:
        InvalidInput: A tensor's type, rank, dimensions or number of bytes is wrong.
        MalformedRequest: A tensor has a field that the .proto does not know.
        PayloadTooLarge: There are more than `max_rows` sequences.

    Example:
        >>> pair = pb.Tensor(dtype=pb.DATA_TYPE_INT32, shape=[2, 1], data=bytes([7, 0, 0, 0, 8, 0, 0, 0]))
        >>> [row.tolist() for row in to_rows([pair], "token_ids", max_rows=2)]
        [[7], [8]]
    """
    refuse_too_many(len(tensors), field, max_rows)
    rows: list[IntArray] = []
    for index, tensor in enumerate(tensors):
        array = _to_integers(tensor, f"{field}[{index}]")
        if array.ndim == 1:
            rows.append(array)
        else:
            refuse_too_many(len(rows) + array.shape[0], field, max_rows)
            rows.extend(array)  # (B, T) is B times (T,)
    refuse_too_many(len(rows), field, max_rows)
    return rows


def from_floats(array: Float32Array) -> pb.Tensor:
    """The message of a float32 array of any shape."""
    data = array.astype(FLOAT32, copy=False).tobytes()
    return pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape, data=data)


def from_integers(array: IntArray) -> pb.Tensor:
    """The message of an integer array of any shape: DATA_TYPE_INT32 of an int32 one, else DATA_TYPE_INT64."""
    dtype = pb.DATA_TYPE_INT32 if array.dtype == np.int32 else pb.DATA_TYPE_INT64
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.astype(INTEGER_TYPES[dtype], copy=False).tobytes())


def to_floats(tensor: pb.Tensor) -> Float32Array:
    """The array of a DATA_TYPE_FLOAT32 message: a read-only view of its bytes.

    Raises:
        ValueError: The type is another, or the bytes do not match the shape.
    """
    if tensor.dtype != pb.DATA_TYPE_FLOAT32:
        raise ValueError(f"dtype must be DATA_TYPE_FLOAT32; received {_type_name(tensor.dtype)}")
    return np.frombuffer(tensor.data, FLOAT32).reshape(tuple(tensor.shape))


def refuse_too_many(received: int, field: str, max_rows: int) -> None:
    """Refuses more sequences than any model here takes, before they cost anything.

    Raises:
        PayloadTooLarge: `received` is above `max_rows`.
    """
    if received > max_rows:
        raise PayloadTooLarge(
            f"a request may carry at most {max_rows} sequences; received at least {received}", field=field
        )


def _to_integers(tensor: pb.Tensor, field: str) -> IntArray:
    refuse_unknown_fields(tensor, field)
    dtype = INTEGER_TYPES.get(tensor.dtype)
    if dtype is None:
        raise InvalidInput(
            f"dtype must be DATA_TYPE_INT32 or DATA_TYPE_INT64; received {_type_name(tensor.dtype)}", field=field
        )
    shape = _shape(tensor, field)
    data = tensor.data
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidInput(
            f"data must be {expected} bytes for shape {list(shape)} of {_type_name(tensor.dtype)}; "
            f"received {len(data)}",
            field=field,
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _shape(tensor: pb.Tensor, field: str) -> tuple[int, ...]:
    rank = len(tensor.shape)
    if rank not in {1, 2}:
        raise InvalidInput(f"shape must have 1 or 2 dimensions; received {rank}", field=field)
    shape = tuple(tensor.shape)
    if min(shape) < rank - 1:  # that a single sequence is empty is not the wire's to judge
        raise InvalidInput(f"every dimension must be at least 1; received shape {list(shape)}", field=field)
    return shape


def _type_name(value: int) -> str:
    return pb.DataType.Name(value) if value in pb.DataType.values() else str(value)  # type: ignore[arg-type]
