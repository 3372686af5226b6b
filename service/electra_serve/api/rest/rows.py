"""Converts parsed JSON lists to sequences of ids, or to texts.

Ids are checked and converted at C speed. `map(type, …)` finds `true`, `1.5`, `"7"` and 2**70, which orjson parses as a
float. One array is filled for all rows, in steps that hold the GIL briefly. The first invalid id is searched for only
if that fails. The service checks ranges and lengths.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate, chain, pairwise
from typing import Final, cast

import numpy as np

from electra_serve.errors import InvalidInput, MalformedRequest
from electra_serve.runtime.work_thread import await_loop_turn
from electra_serve.tensors import IntArray, TextInput, TokenInput

_JSON_NAMES: Final = {
    bool: "a boolean",
    dict: "an object",
    float: "a number that is fractional or beyond 64 bits",
    int: "an integer",
    list: "a list",
    str: "a string",
    type(None): "null",
}

STEP: Final = 65_536  # ids that are converted under one hold of the GIL, in two milliseconds
_MAX_INT64: Final = 2**63 - 1
_MIN_INT32: Final = -(2**31)
_MAX_INT32: Final = 2**31 - 1


def id_rows(values: object, field: str) -> list[IntArray]:
    """Converts a list of lists of integers to one (T,) int32 or int64 array per row, all views of one buffer.

    Raises `MalformedRequest` for anything else, and `InvalidInput` for an element that is not an integer of 64 bits.

    >>> [row.tolist() for row in id_rows([[101, 102], [7]], "token_ids")]
    [[101, 102], [7]]
    """
    rows = _lists(values, field)
    flat = list(chain.from_iterable(rows))
    ends = list(accumulate(map(len, rows), initial=0))
    ids = _integers(flat, 0, ends, field) if len(flat) <= STEP else _integers_in_steps(flat, ends, field)
    return [ids[start:end] for start, end in pairwise(ends)]


def texts_or_ids(value: object, field: str, check: Callable[[list[object]], None]) -> TextInput | TokenInput:
    """Converts a text, a list of texts, a list of ids or a list of those, as APIs of other servers take them.

    `check` rejects a list that is empty or too long. Raises `MalformedRequest` for other types.
    """
    if isinstance(value, str):
        return TextInput((value,))
    if not isinstance(value, list):
        raise MalformedRequest(f"{field} must be a string, or a list of strings; got another type", field=field)
    kinds = set(map(type, value))
    if kinds == {int}:
        return TokenInput(id_rows([value], field))
    check(value)
    if kinds == {str}:
        return TextInput(tuple(value))
    if kinds == {list}:
        return TokenInput(id_rows(value, field))
    raise MalformedRequest(f"{field} must be strings, ids, or lists of ids; got several types", field=field)


def _integers_in_steps(flat: list[object], ends: list[int], field: str) -> IntArray:
    """Converts many values; narrows them if it can, which is half the work for the event loop that validates them."""
    ids = np.empty(len(flat), np.int64)
    for start in range(0, len(flat), STEP):
        ids[start : start + STEP] = _integers(flat, start, ends, field)
        await_loop_turn()
    return ids.astype(np.int32) if ids.min() >= _MIN_INT32 and ids.max() <= _MAX_INT32 else ids


def _integers(flat: list[object], start: int, ends: list[int], field: str) -> IntArray:
    """Converts the next `STEP` values."""
    step = flat[start : start + STEP]
    if not set(map(type, step)) <= {int}:
        at = next(at for at, value in enumerate(step) if type(value) is not int)
        raise _not_integer(step[at], *_place(start + at, ends), field)
    try:
        return np.fromiter(cast("list[int]", step), np.int64, len(step))
    except OverflowError as error:
        at = next(at for at, value in enumerate(cast("list[int]", step)) if value > _MAX_INT64)
        raise _too_wide(_place(start + at, ends)[0], field) from error


def _place(at: int, ends: list[int]) -> tuple[int, int]:
    """Returns the row of a value and its position there."""
    row = bisect_right(ends, at) - 1
    return row, at - ends[row]


def text_rows(values: object, field: str) -> tuple[str | tuple[str, str], ...]:
    """Converts one text, or a list of texts and pairs of texts; raises `MalformedRequest` for anything else.

    >>> text_rows(["alone", ["first", "second"]], "text")
    ('alone', ('first', 'second'))
    """
    if isinstance(values, str):
        return (values,)
    if not isinstance(values, list):
        raise MalformedRequest(
            f"{field} must be a string, or a list of strings and pairs of strings; received {_json_name(values)}",
            field=field,
        )
    if set(map(type, values)) <= {str}:
        return tuple(values)
    return tuple(_text(value, field, row) for row, value in enumerate(values))


def _text(value: object, field: str, row: int) -> str | tuple[str, str]:
    match value:
        case str():
            return value
        case [str(first), str(second)]:
            return first, second
    raise MalformedRequest(
        f"each entry of {field} must be a string or a pair of strings; {field}[{row}] is {_json_name(value)}"
        + (" of something else" if isinstance(value, list) else ""),
        field=f"{field}[{row}]",
    )


def _lists(values: object, field: str) -> list[list[object]]:
    if not isinstance(values, list):
        raise MalformedRequest(
            f"{field} must be a list of lists of integers, one per sequence; received {_json_name(values)}",
            field=field,
        )
    if not set(map(type, values)) <= {list}:
        row = next(row for row, value in enumerate(values) if type(value) is not list)
        raise MalformedRequest(
            f"{field} must be a list of lists of integers, one per sequence; "
            f"{field}[{row}] is {_json_name(values[row])}",
            field=f"{field}[{row}]",
        )
    return cast("list[list[object]]", values)


def _not_integer(value: object, row: int, position: int, field: str) -> InvalidInput:
    return InvalidInput(
        f"{field} must hold integers only; {field}[{row}][{position}] is {_json_name(value)}",
        field=f"{field}[{row}]",
    )


def _too_wide(row: int, field: str) -> InvalidInput:
    return InvalidInput(
        f"{field} must hold integers of at most 64 bits, sign included; {field}[{row}] has a larger one",
        field=f"{field}[{row}]",
    )


def _json_name(value: object) -> str:
    return _JSON_NAMES[type(value)]
