"""Rows are cut into the cheapest batches."""

from __future__ import annotations

import math
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.row_batches import RowBatches
from electra_serve.tensors import BatchShape

SHAPES = [BatchShape(rows, length) for rows in (1, 2, 3, 5) for length in (16, 64, 96)]

tables = st.dictionaries(st.sampled_from(SHAPES[3:]), st.floats(0.01, 1)).map(
    lambda timings: CostTable(dict(zip(SHAPES[:3], (0.3, 0.5, 0.6), strict=True)) | timings)
)


@given(tables, st.lists(st.integers(1, 96), max_size=7))
def test_no_grouping_is_cheaper(costs: CostTable, used: list[int]) -> None:
    batches = RowBatches(costs, costs.shapes)
    kinds = sorted(batches.kinds[positions] for positions in used)
    assert batches.seconds(kinds) == pytest.approx(_least_seconds(costs, tuple(used)))


def _least_seconds(costs: CostTable, used: tuple[int, ...]) -> float:
    """Least seconds over each way of grouping rows in each shape, by trying all of them."""

    @cache
    def least(rows: frozenset[int]) -> float:
        if not rows:
            return 0.0
        first = min(rows)
        return min(
            costs.seconds(shape) + least(rows - chosen)
            for chosen in _subsets(rows, first)
            for shape in costs.shapes
            if shape.rows >= len(chosen) and shape.length >= max(used[row] for row in chosen)
        )

    return least(frozenset(range(len(used))))


def _subsets(rows: frozenset[int], first: int) -> list[frozenset[int]]:
    """Up to five rows, with the first."""
    subsets = [frozenset({first})]
    for row in rows - {first}:
        subsets += [subset | {row} for subset in subsets if len(subset) < 5]
    return subsets


@given(tables, st.lists(st.integers(1, 96), max_size=40))
def test_cut_holds_each_row_once_at_the_least_seconds(costs: CostTable, used: list[int]) -> None:
    batches = RowBatches(costs, costs.shapes)
    kinds = sorted(batches.kinds[positions] for positions in used)
    cuts = list(batches.cut(kinds))
    assert [row for rows, _ in reversed(cuts) for row in range(rows.start, rows.stop)] == list(range(len(kinds)))
    for rows, shape in cuts:
        assert 1 <= rows.stop - rows.start <= shape.rows
        assert batches.lengths[kinds[rows.stop - 1]] <= shape.length
    assert sum(costs.seconds(shape) for _, shape in cuts) == pytest.approx(batches.seconds(kinds))


@given(tables, st.integers(0, 2), st.integers(0, 30))
def test_equal_rows_cost_the_same_as_any_rows(costs: CostTable, kind: int, count: int) -> None:
    batches = RowBatches(costs, costs.shapes)
    assert batches.equal_seconds(kind, count) == batches.seconds([kind] * count)
    assert batches.equal_seconds(kind, count // 2) == batches.seconds([kind] * (count // 2))


def test_the_most_rows_go_first() -> None:
    costs = CostTable({BatchShape(rows, 64): (rows + 2) / 10 for rows in (1, 2, 4)})
    cuts = list(RowBatches(costs, costs.shapes).cut([0] * 7))
    assert [(rows, shape.rows) for rows, shape in cuts] == [(slice(3, 7), 4), (slice(0, 3), 4)]
    cuts = list(RowBatches(costs, costs.shapes).cut([0] * 13))
    assert [shape.rows for _, shape in cuts] == [4, 4, 4, 1]


def test_a_half_empty_row_gets_a_shorter_shape() -> None:
    costs = CostTable({BatchShape(1, 16): 0.1, BatchShape(1, 64): 0.4, BatchShape(2, 64): 0.6})
    batches = RowBatches(costs, costs.shapes)
    cuts = [shape for _, shape in batches.cut([batches.kinds[10], batches.kinds[64], batches.kinds[60]])]
    assert cuts == [BatchShape(2, 64), BatchShape(1, 16)]


def test_a_longer_shape_is_used_if_it_is_cheaper() -> None:
    costs = CostTable({BatchShape(1, 16): 0.3, BatchShape(1, 32): 0.2})
    assert [shape for _, shape in RowBatches(costs, costs.shapes).cut([0])] == [BatchShape(1, 32)]


def test_best_rate_is_that_of_the_shapes_that_hold_the_row() -> None:
    costs = CostTable({BatchShape(1, 16): 0.16, BatchShape(2, 16): 0.16, BatchShape(1, 32): 0.32})
    assert RowBatches(costs, costs.shapes).position_seconds == pytest.approx([0.005, 0.01])


def test_without_shapes_there_is_no_row() -> None:
    batches = RowBatches(CostTable({BatchShape(1, 16): 0.1}), [])
    assert (batches.lengths, batches.max_length) == ([], 0)
    assert math.isclose(batches.seconds([]), 0.0)
