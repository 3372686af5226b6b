"""What an engine refuses: each bound from both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from electra_serve.engine.base import ShapeGrid
from electra_serve.engine.input_checks import InputBounds
from electra_serve.engine.profiling import full_batch
from electra_serve.tensors import Batch, BatchShape
from tests.fakes import FAKE_CONFIG

GRID = ShapeGrid(max_rows=4, max_length=16, rows=(1, 4), lengths=(8, 16), max_tokens=32)
BOUNDS = InputBounds.of(FAKE_CONFIG, GRID)


def holding(field: str, value: int) -> Batch:
    batch = full_batch(BatchShape(4, 8))
    values = np.copy(getattr(batch, field))
    values[3, 7] = value
    return replace(batch, **{field: values})


@pytest.mark.parametrize(("field", "most"), [("token_ids", 99), ("segment_ids", 1), ("padding_mask", 1)])
def test_each_number_is_bounded_on_both_sides(field: str, most: int) -> None:
    for value in (0, most):
        BOUNDS.check(holding(field, value))
    for value in (-1, most + 1, -(2**31), 2**31 - 1):
        with pytest.raises(ValueError, match=rf"^{field} must be 0 to {most}; received .*{value}"):
            BOUNDS.check(holding(field, value))


def test_a_batch_that_is_a_view_of_another_is_checked_too() -> None:
    whole = holding("token_ids", 100)
    left = Batch(*(array[:, ::2] for array in (whole.token_ids, whole.segment_ids, whole.padding_mask)))
    InputBounds(ShapeGrid(4, 16), 100, 2).check(left)
    right = Batch(*(array[:, 1::2] for array in (whole.token_ids, whole.segment_ids, whole.padding_mask)))
    with pytest.raises(ValueError, match="received 0 to 100"):
        InputBounds(ShapeGrid(4, 16), 100, 2).check(right)


@pytest.mark.parametrize("shape", [(1, 8), (1, 16), (4, 8)])
def test_a_shape_of_the_grid_is_taken(shape: tuple[int, int]) -> None:
    BOUNDS.check(full_batch(BatchShape(*shape)))


@pytest.mark.parametrize("shape", [(2, 8), (1, 9), (4, 16), (5, 8), (1, 17), (0, 8), (1, 0)])
def test_another_shape_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"shape of the engine's grid; received BatchShape\(rows="):
        BOUNDS.check(full_batch(BatchShape(*shape)))
