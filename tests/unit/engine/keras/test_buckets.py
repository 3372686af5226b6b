"""The grid of an engine that compiles per shape: complete, bounded, and near to what is asked."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from electra_serve.engine.base import ShapeGrid
from electra_serve.engine.keras.buckets import GROWTH, LENGTH_STEP, fixed_grid
from electra_serve.tensors import BatchShape

grids = st.builds(ShapeGrid, st.integers(1, 64), st.integers(1, 1024), max_tokens=st.none() | st.integers(1, 9000))


@given(grids, st.integers(1, 64), st.integers(1, 1024))
def test_every_batch_has_a_shape_that_is_near(grid: ShapeGrid, rows: int, length: int) -> None:
    fixed = fixed_grid(grid)
    rows, length = min(rows, grid.max_rows), min(length, grid.max_length)
    shape = fixed.fit(rows, length)
    assert rows <= shape.rows < 2 * rows
    assert length <= shape.length < max(length + LENGTH_STEP, length * GROWTH + 1)


@given(grids)
def test_the_listed_shapes_are_those_that_are_taken(grid: ShapeGrid) -> None:
    fixed = fixed_grid(grid)
    assert (fixed.rows[0], fixed.rows[-1], fixed.lengths[-1]) == (1, grid.max_rows, grid.max_length)
    assert list(fixed.rows) == sorted(set(fixed.rows))
    assert list(fixed.lengths) == sorted(set(fixed.lengths))
    shapes = list(fixed.shapes())
    assert all(fixed.holds(shape) for shape in shapes)
    assert {shape.length for shape in shapes if shape.rows == 1} == set(fixed.lengths)


def test_the_default_grid_is_some_hundred_shapes() -> None:
    fixed = fixed_grid(ShapeGrid(max_rows=32, max_length=512, max_tokens=8192))
    assert sum(1 for _ in fixed.shapes()) == 109
    assert fixed.holds(BatchShape(16, 512))
    assert not fixed.holds(BatchShape(32, 512))


def test_what_is_fixed_already_stays() -> None:
    grid = ShapeGrid(max_rows=3, max_length=10, rows=(3,), lengths=(10,))
    assert fixed_grid(grid) == grid
    assert fixed_grid(replace(grid, rows=())).rows == (1, 2, 3)


def test_a_grid_of_free_shapes_lists_none() -> None:
    assert list(ShapeGrid(max_rows=8, max_length=512).shapes()) == []
