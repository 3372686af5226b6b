"""What goes into a client, the same for every transport: the many ways to write a request, brought to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from electra_serve.errors import InvalidInput
from electra_serve.tensors import IntArray, Output, Truncation

Priority: TypeAlias = Literal["high", "normal", "low"]
Row: TypeAlias = "Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]"
Rows: TypeAlias = "Sequence[Row] | NDArray[np.integer] | NDArray[np.bool_]"
Texts: TypeAlias = "str | Sequence[str | tuple[str, str]]"


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One request, checked as far as its types go; the server checks the rest.

    Attributes:
        token_ids: (T,) integer arrays, or None where `texts` is set.
        segment_ids: Likewise, or None for all zeros.
        padding_mask: Likewise, or None for all ones.
        texts: Texts and pairs of texts, or None where `token_ids` is set.
        model: A model's name, or None for the only one.
        outputs: What to ask for; empty for the server's default.
        truncate: Whether to cut what is too long.
        truncation: How to cut it; None if `truncate` says it all.
        priority: Which requests leave the server's queue first.
    """

    token_ids: Sequence[IntArray] | None
    segment_ids: Sequence[IntArray] | None
    padding_mask: Sequence[IntArray] | None
    texts: Sequence[str | tuple[str, str]] | None
    model: str | None
    outputs: tuple[Output, ...]
    truncate: bool
    truncation: Truncation | None
    priority: Priority

    @classmethod
    def of(
        cls,
        *,
        token_ids: Rows | None,
        segment_ids: Rows | None,
        padding_mask: Rows | None,
        text: Texts | None,
        model: str | None,
        outputs: Iterable[str],
        truncate: bool,
        truncation: str | None,
        priority: Priority,
    ) -> Query:
        """Brings every way of writing a request to one.

        Raises:
            InvalidInput: Not exactly one of ids and text, ids that are no sequences of integers, or an
                unknown output or truncation.
        """
        if (token_ids is None) == (text is None):
            raise InvalidInput(f"one of token_ids and text is needed; received {'neither' if text is None else 'both'}")
        if token_ids is None and not (segment_ids is None and padding_mask is None):
            raise InvalidInput("segment_ids and padding_mask go with token_ids; received text")
        return cls(
            token_ids=_rows(token_ids, "token_ids"),
            segment_ids=_rows(segment_ids, "segment_ids"),
            padding_mask=_rows(padding_mask, "padding_mask"),
            texts=_texts(text),
            model=model,
            outputs=tuple(_output(name) for name in outputs),
            truncate=truncate,
            truncation=None if truncation is None else _truncation(truncation),
            priority=priority,
        )


def _rows(rows: Rows | None, field: str) -> list[IntArray] | None:
    return None if rows is None else [_row(row, f"{field}[{index}]") for index, row in enumerate(rows)]


def _row(row: Row, field: str) -> IntArray:
    array = np.asarray(row)
    if array.dtype == np.bool_ or array.shape == (0,):  # a mask; or [], which numpy takes for floats
        array = array.astype(np.int32)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InvalidInput(
            f"a sequence must have 1 dimension of integers; received {array.ndim} of {array.dtype}", field=field
        )
    return array


def _texts(text: Texts | None) -> list[str | tuple[str, str]] | None:
    if text is None:
        return None
    return [text] if isinstance(text, str) else list(text)


def _output(name: str) -> Output:
    try:
        return Output(name)
    except ValueError as error:
        raise InvalidInput(f"outputs must be among {', '.join(Output)}; received another", field="outputs") from error


def _truncation(name: str) -> Truncation:
    try:
        return Truncation(name)
    except ValueError as error:
        valid = ", ".join(Truncation)
        raise InvalidInput(f"truncation must be one of {valid}; received another", field="truncation") from error
