"""Converts numpy arrays to `Tensor` messages and back: little-endian, row-major.

Server and client share this module, so it imports only messages, numpy and the package's array types.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.tensors import Float32Array, IntArray

INTEGER_TYPES: Final[Mapping[int, np.dtype[Any]]] = MappingProxyType(
    {pb.DATA_TYPE_INT32: np.dtype("<i4"), pb.DATA_TYPE_INT64: np.dtype("<i8")}
)
FLOAT32: Final = np.dtype("<f4")


def from_floats(array: Float32Array) -> pb.Tensor:
    """Converts a float32 array of any shape to a message."""
    data = array.astype(FLOAT32, copy=False).tobytes()
    return pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape, data=data)


def from_integers(array: IntArray) -> pb.Tensor:
    """Converts an integer array of any shape to a message: DATA_TYPE_INT32 if it is int32, else DATA_TYPE_INT64."""
    dtype = pb.DATA_TYPE_INT32 if array.dtype == np.int32 else pb.DATA_TYPE_INT64
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.astype(INTEGER_TYPES[dtype], copy=False).tobytes())


def to_floats(tensor: pb.Tensor) -> Float32Array:
    """Returns the array of a DATA_TYPE_FLOAT32 message: a read-only view of its bytes.

    Raises:
        ValueError: The message has another type, or its bytes do not match its shape.
    """
    if tensor.dtype != pb.DATA_TYPE_FLOAT32:
        raise ValueError(f"dtype must be DATA_TYPE_FLOAT32; received {type_name(tensor.dtype)}")
    return np.frombuffer(tensor.data, FLOAT32).reshape(tuple(tensor.shape))


def type_name(dtype: int) -> str:
    """Returns the name of a `DataType`, or its number if the .proto does not define it.

    Example:
        >>> type_name(pb.DATA_TYPE_INT32), type_name(99)
        ('DATA_TYPE_INT32', '99')
    """
    return pb.DataType.Name(dtype) if dtype in pb.DataType.values() else str(dtype)  # type: ignore[arg-type]
