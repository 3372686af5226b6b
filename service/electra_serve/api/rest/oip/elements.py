"""Converts the elements of a tensor in JSON: flat, or nested as its shape.

Types are checked and integers converted at C speed, in steps that hold the GIL briefly. Clients that write every number
as a float send integers as `2.0`, so floats that are whole are accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from electra_serve.api.oip.tensors import INTEGERS, TEXT, TensorHeader, check_elements
from electra_serve.api.rest.rows import STEP
from electra_serve.errors import InvalidInput, MalformedRequest
from electra_serve.runtime.work_thread import await_loop_turn
from electra_serve.tensors import IntArray

_BOOLEANS: Final = frozenset({bool, int})
_NUMBERS: Final = frozenset({int, float})


def elements(data: object, header: TensorHeader) -> IntArray | Sequence[str]:
    """Returns the elements of a tensor in C order.

    Raises:
        MalformedRequest: `data` is no list.
        InvalidInput: It has another shape, or an element is not of the datatype.

    Example:
        >>> elements([[2, 5.0], [4, 0]], TensorHeader("token_ids", "INT64", (2, 2)))
        array([2, 5, 4, 0])
    """
    flat = _flat(data, header)
    if header.field == TEXT:
        if not set(map(type, flat)) <= {str}:
            at = next(at for at, value in enumerate(flat) if type(value) is not str)
            raise InvalidInput(f"{header.name} must hold strings; element {at} is of another type", field=header.name)
        return cast("list[str]", flat)
    if len(flat) <= STEP:
        return _integers(flat, 0, header)
    integers = np.empty(len(flat), INTEGERS[header.datatype])
    for start in range(0, len(flat), STEP):
        integers[start : start + STEP] = _integers(flat[start : start + STEP], start, header)
        await_loop_turn()
    return integers


def _flat(data: object, header: TensorHeader) -> list[object]:
    if not isinstance(data, list):
        raise MalformedRequest(f"data of {header.name} must be a list; got another type", field=header.name)
    if list not in map(type, data[:1]):
        check_elements(header, len(data))
        return data
    if len(header.shape) != 2 or not set(map(type, data)) <= {list}:
        raise InvalidInput(
            f"data of {header.name} must be flat, or nested as its shape, {list(header.shape)}; got another nesting",
            field=header.name,
        )
    rows, width = header.shape
    if len(data) != rows or not set(map(len, data)) <= {width}:
        raise InvalidInput(
            f"data of {header.name} must be nested as its shape, {list(header.shape)}; got rows of another number or "
            "length",
            field=header.name,
        )
    return list(chain.from_iterable(data))


def _integers(step: list[object], start: int, header: TensorHeader) -> IntArray:
    allowed, kinds = _BOOLEANS if header.datatype == "BOOL" else _NUMBERS, set(map(type, step))
    if not kinds <= allowed:
        at = next(at for at, value in enumerate(step) if type(value) not in allowed)
        raise _mismatch(start + at, header)
    if float in kinds:
        return _whole(np.fromiter(cast("list[float]", step), np.float64, len(step)), start, header)
    integers = cast("list[int]", step)
    try:
        converted = np.fromiter(integers, INTEGERS[header.datatype], len(step))
    except OverflowError as error:
        least, most = _bounds(header)
        raise _mismatch(
            start + next(at for at, value in enumerate(integers) if not least <= value <= most), header
        ) from error
    if header.datatype == "BOOL":  # its elements have the range of a byte
        _check_range(converted, start, header)
    return converted


def _whole(values: NDArray[np.float64], start: int, header: TensorHeader) -> IntArray:
    wrong = (values != np.trunc(values)) | (np.abs(values) >= 2.0**63)
    if wrong.any():
        raise _mismatch(start + int(np.argmax(wrong)), header)
    converted = values.astype(np.int64)
    _check_range(converted, start, header)
    return converted


def _check_range(values: IntArray, start: int, header: TensorHeader) -> None:
    """Raises `InvalidInput` for a number beyond the datatype."""
    if not values.size:
        return
    least, most = _bounds(header)
    if values.min() < least or values.max() > most:
        raise _mismatch(start + int(np.argmax((values < least) | (values > most))), header)


def _bounds(header: TensorHeader) -> tuple[int, int]:
    """Returns the least and the largest number of a datatype."""
    if header.datatype == "BOOL":
        return 0, 1
    limits = np.iinfo(INTEGERS[header.datatype])
    return int(limits.min), int(limits.max)


def _mismatch(at: int, header: TensorHeader) -> InvalidInput:
    width = header.shape[-1]
    row, column = divmod(at, width)
    field = f"{header.name}[{row}]"
    return InvalidInput(
        f"{header.name} must hold numbers of {header.datatype}; {field}[{column}] is another value", field=field
    )
