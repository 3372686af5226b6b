"""Input tensors: their datatypes and shapes, and their elements from bytes.

https://github.com/kserve/open-inference-protocol defines the datatypes; the bytes are those of Triton's binary data
extension and of gRPC's raw contents. Shapes are checked before elements are read, so a tensor's cost is bounded by its
bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.tensors import IntArray

BYTES: Final = "BYTES"
# Elements of ids, segments and masks: little-endian, and one byte for a boolean
INTEGERS: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        "BOOL": np.dtype("u1"),
        "INT8": np.dtype("i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "UINT8": np.dtype("u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
    }
)
LENGTH_BYTES: Final = 4  # before each element of BYTES

TEXT: Final = "text"
# Names of input tensors: the service's own, and those of transformers
INPUTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "token_ids": "token_ids",
        "input_ids": "token_ids",
        "segment_ids": "segment_ids",
        "token_type_ids": "segment_ids",
        "padding_mask": "padding_mask",
        "attention_mask": "padding_mask",
        TEXT: TEXT,
    }
)


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """Description of an input tensor, checked."""

    name: str  # as the client spells it
    datatype: str
    shape: tuple[int, ...]

    @property
    def field(self) -> str:
        """Field of the service that it sets."""
        return INPUTS[self.name]

    @property
    def elements(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """An input tensor; `data` is flat and has as many elements as the shape says."""

    header: TensorHeader
    data: IntArray | Sequence[str]


def header_of(name: str, datatype: str, shape: Sequence[int], *, max_sequences: int) -> TensorHeader:
    """Checks name, datatype and shape of an input tensor.

    Raises:
        InvalidInput: The name is unknown, or the datatype or shape does not fit it.
        PayloadTooLarge: It has more than `max_sequences` rows.

    Example:
        >>> header_of("input_ids", "INT32", [2, 3], max_sequences=8).field
        'token_ids'
    """
    if name not in INPUTS:
        raise InvalidInput(f"inputs must be among {', '.join(INPUTS)}; got another", field="inputs")
    header = TensorHeader(name, datatype, tuple(shape))
    (_check_text if name == TEXT else _check_integers)(header)
    rows = 1 if len(shape) == 1 and name != TEXT else shape[0]
    if rows > max_sequences:
        raise PayloadTooLarge(f"a request may carry at most {max_sequences} sequences; got {rows}", field=name)
    return header


def from_bytes(header: TensorHeader, data: memoryview) -> Tensor:
    """Reads the elements of a tensor: a view of its bytes, or its texts; raises `InvalidInput` if they do not fit."""
    if header.datatype == BYTES:
        return Tensor(header, _texts(header, data))
    dtype = INTEGERS[header.datatype]
    expected = header.elements * dtype.itemsize
    if len(data) != expected:
        raise InvalidInput(
            f"{header.name} must have {expected} bytes for shape {list(header.shape)} of {header.datatype}; "
            f"got {len(data)}",
            field=header.name,
        )
    return Tensor(header, np.frombuffer(data, dtype))


def check_elements(header: TensorHeader, count: int) -> None:
    """Raises `InvalidInput` unless `count` elements fit the shape."""
    if count != header.elements:
        raise InvalidInput(
            f"{header.name} must have {header.elements} elements for shape {list(header.shape)}; got {count}",
            field=header.name,
        )


def to_text(header: TensorHeader, index: int, data: bytes) -> str:
    """Decodes one element of BYTES; raises `InvalidInput` if it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{header.name} must be UTF-8; element {index} is not", field=header.name) from error


def _check_integers(header: TensorHeader) -> None:
    if header.datatype not in INTEGERS:
        raise InvalidInput(
            f"datatype of {header.name} must be one of {', '.join(INTEGERS)}; got another", field=header.name
        )
    _check_dimensions(header)


def _check_text(header: TensorHeader) -> None:
    if header.datatype != BYTES:
        raise InvalidInput(f"datatype of {header.name} must be {BYTES}; got another", field=header.name)
    _check_dimensions(header)
    if len(header.shape) == 2 and header.shape[1] not in {1, 2}:
        raise InvalidInput(
            f"shape of {header.name} must be [B] or [B, 1], or [B, 2] for pairs; got {list(header.shape)}",
            field=header.name,
        )


def _check_dimensions(header: TensorHeader) -> None:
    if len(header.shape) not in {1, 2}:
        raise InvalidInput(
            f"shape of {header.name} must have 1 or 2 dimensions; got {len(header.shape)}", field=header.name
        )
    if min(header.shape) < 0:
        raise InvalidInput(
            f"dimensions of {header.name} must not be negative; got {min(header.shape)}", field=header.name
        )


def _texts(header: TensorHeader, data: memoryview) -> list[str]:
    texts: list[str] = []
    at = 0
    while at < len(data) and len(texts) < header.elements:
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data) or start > len(data):
            raise InvalidInput(
                f"each element of {header.name} must be {LENGTH_BYTES} bytes of its length and then its bytes; "
                f"element {len(texts)} ends after the tensor",
                field=header.name,
            )
        texts.append(to_text(header, len(texts), bytes(data[start:at])))
    if at < len(data) or len(texts) < header.elements:
        raise InvalidInput(
            f"{header.name} must have {header.elements} elements for shape {list(header.shape)}; "
            f"got {'more' if at < len(data) else len(texts)}",
            field=header.name,
        )
    return texts
