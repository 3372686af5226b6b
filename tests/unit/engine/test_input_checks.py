"""An engine rejects values out of range: each bound from both sides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from electra_serve.engine.input_checks import InputBounds
from electra_serve.engine.profiling import full_batch
from electra_serve.tensors import Batch, BatchShape
from tests.fakes import FAKE_CONFIG

BOUNDS = InputBounds.of(FAKE_CONFIG, (BatchShape(1, 8), BatchShape(4, 8), BatchShape(1, 16)))


def holding(field: str, value: int) -> Batch:
    batch = full_batch(BatchShape(4, 8))
    values = np.copy(getattr(batch, field))
    values[3, -1] = value
    fields: dict[str, Any] = {field: values}
    return replace(batch, **fields)


@pytest.mark.parametrize(
    ("field", "most"),
    [
        ("token_ids", 99),
        ("segment_ids", 1),
        ("position_ids", 15),
        ("sequence_ids", 2),
        ("padding_mask", 1),
        ("starts", 7),
    ],
)
def test_each_number_is_bounded_on_both_sides(field: str, most: int) -> None:
    for value in (0, most):
        BOUNDS.check(holding(field, value))
    for value in (-1, most + 1, -(2**31), 2**31 - 1):
        with pytest.raises(ValueError, match=rf"^{field} must be 0 to {most}; got .*{value}"):
            BOUNDS.check(holding(field, value))


def test_a_batch_that_is_a_view_of_another_is_checked_too() -> None:
    whole = holding("token_ids", 100)
    for columns, holds in ((slice(None, None, 2), False), (slice(1, None, 2), True)):
        view = replace(whole, **{name: getattr(whole, name)[:, columns] for name in ("token_ids", "segment_ids")})
        bounds = replace(BOUNDS, shapes=frozenset({BatchShape(4, 4)}))
        if holds:
            with pytest.raises(ValueError, match="got 0 to 100"):
                bounds.check(view)
        else:
            with pytest.raises(ValueError, match="sequence_ids must be 0 to 1; got"):
                bounds.check(replace(view, sequence_ids=view.sequence_ids + 1))


@pytest.mark.parametrize("shape", [(1, 8), (1, 16), (4, 8)])
def test_each_shape_of_the_engine_is_taken(shape: tuple[int, int]) -> None:
    BOUNDS.check(full_batch(BatchShape(*shape)))


@pytest.mark.parametrize("shape", [(2, 8), (1, 9), (4, 16), (5, 8), (1, 17), (0, 8), (1, 0)])
def test_another_shape_is_rejected(shape: tuple[int, int]) -> None:
    rows, length = shape
    batch = replace(full_batch(BatchShape(1, 8)), token_ids=np.zeros((rows, length), np.int32))
    with pytest.raises(ValueError, match=r"one of the engine's shapes; got BatchShape\(rows="):
        BOUNDS.check(batch)
