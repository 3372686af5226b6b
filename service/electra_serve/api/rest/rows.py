"""Lists, as JSON has them, to the sequences that the service takes.

Ids are checked and converted at C speed: `map(type, …)` sees every element, so that `true`, `1.5`, `"7"` and
2**70 (a float by then) are told from ids, and one array is filled for all rows. Only when that fails is the
first row at fault looked for.

Ranges and lengths are the service's to check, not this module's.
"""

from __future__ import annotations

from itertools import accumulate, chain, pairwise
from typing import Final, cast

import numpy as np

from electra_serve.errors import InvalidInput, MalformedRequest
from electra_serve.tensors import IntArray

_JSON_NAMES: Final = {
    bool: "a boolean",
    dict: "an object",
    float: "a number that is fractional or beyond 64 bits",
    int: "an integer",
    list: "a list",
    str: "a string",
    type(None): "null",
}

_MAX_INT64: Final = 2**63 - 1


def id_rows(values: object, field: str) -> list[IntArray]:
    """Converts a list of lists of integers.

    Args:
        values: Parsed JSON.
        field: What the values are called in the request.

    Returns:
        One (T,) int64 array per row; all are views of one buffer.

    Raises:
        MalformedRequest: Not a list of lists.
        InvalidInput: An element is not an integer, or one beyond 64 bits.

    Example:
        >>> [row.tolist() for row in id_rows([[101, 102], [7]], "token_ids")]
        [[101, 102], [7]]
    """
    rows = _lists(values, field)
    flat = list(chain.from_iterable(rows))
    if not set(map(type, flat)) <= {int}:
        raise _not_integer(rows, field)
    try:
        ids = np.fromiter(flat, np.int64, len(flat))
    except OverflowError as error:
        raise _too_wide(cast("list[list[int]]", rows), field) from error
    return [ids[start:end] for start, end in pairwise(accumulate(map(len, rows), initial=0))]


def text_rows(values: object, field: str) -> tuple[str | tuple[str, str], ...]:
    """Converts one text, or a list of texts and pairs of texts.

    Raises:
        MalformedRequest: Anything else.

    Example:
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


def _not_integer(rows: list[list[object]], field: str) -> InvalidInput:
    row = next(row for row, values in enumerate(rows) if not set(map(type, values)) <= {int})
    types = list(map(type, rows[row]))
    position = min(types.index(other) for other in set(types) - {int})
    return InvalidInput(
        f"{field} must hold integers only; {field}[{row}][{position}] is {_json_name(rows[row][position])}",
        field=f"{field}[{row}]",
    )


def _too_wide(rows: list[list[int]], field: str) -> InvalidInput:
    row = next(row for row, values in enumerate(rows) if max(values, default=0) > _MAX_INT64)
    return InvalidInput(
        f"{field} must hold integers of at most 64 bits, sign included; {field}[{row}] has a larger one",
        field=f"{field}[{row}]",
    )


def _json_name(value: object) -> str:
    return _JSON_NAMES[type(value)]
