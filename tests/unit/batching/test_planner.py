"""The planner's partition: complete, within bounds, and never dearer than the plain plans or any other."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.batching.cost_model import CostModel
from electra_serve.batching.planner import MicroBatch, Planner
from electra_serve.engine.base import ShapeGrid

ANY_SHAPE = ShapeGrid(max_rows=16, max_length=512)
FIXED_SHAPES = ShapeGrid(max_rows=16, max_length=512, rows=(1, 2, 4, 8, 16), lengths=(16, 64, 128, 512))

lengths = st.lists(st.integers(1, 512), min_size=1, max_size=40)
costs = st.builds(CostModel, st.floats(0, 0.1), st.floats(0, 1e-3), st.floats(0, 1e-6))
grids = st.sampled_from([ANY_SHAPE, FIXED_SHAPES])
budgets = st.integers(1, 10_000)
targets = st.floats(0.001, 1) | st.just(math.inf)


@given(lengths, costs, grids, budgets, targets)
def test_every_row_is_planned_once_and_fits(
    rows: list[int], cost: CostModel, grid: ShapeGrid, budget: int, target_s: float
) -> None:
    planner = Planner(cost, grid, max_tokens=budget, target_batch_s=target_s)
    plan = planner.plan(rows)
    assert sorted(row for batch in plan for row in batch.rows) == list(range(len(rows)))
    for batch in plan:
        assert max(rows[row] for row in batch.rows) <= batch.shape.length
        assert len(batch.rows) <= batch.shape.rows <= grid.max_rows
        assert grid.fit(batch.shape.rows, batch.shape.length) == batch.shape
        if len(batch.rows) > 1:
            assert batch.shape.tokens <= min(budget, planner.batch_tokens)
            assert cost.seconds(batch.shape.rows, batch.shape.length) <= target_s


@given(st.lists(st.integers(1, 512), min_size=1, max_size=16), costs, grids)
def test_never_dearer_than_one_by_one_or_one_batch(rows: list[int], cost: CostModel, grid: ShapeGrid) -> None:
    planner = Planner(cost, grid, max_tokens=16 * 512)
    planned = planner.seconds(planner.plan(rows))
    singly = [MicroBatch((row,), grid.fit(1, length)) for row, length in enumerate(rows)]
    together = [MicroBatch(tuple(range(len(rows))), grid.fit(len(rows), max(rows)))]
    assert planned <= planner.seconds(singly) * (1 + 1e-9)
    assert planned <= planner.seconds(together) * (1 + 1e-9)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=7), costs, grids, budgets, targets)
def test_is_the_cheapest_of_all_cuts(
    rows: list[int], cost: CostModel, grid: ShapeGrid, budget: int, target_s: float
) -> None:
    planner = Planner(cost, grid, max_tokens=budget, target_batch_s=target_s)
    ordered = sorted(rows)
    best = min(
        planner.seconds(batches)
        for count in range(len(rows))
        for cuts in combinations(range(1, len(rows)), count)
        if (batches := _cut(ordered, (0, *cuts, len(rows)), grid, budget)) is not None
        and all(planner.seconds([batch]) <= target_s or len(batch.rows) == 1 for batch in batches)
    )
    assert planner.seconds(planner.plan(rows)) == pytest.approx(best)


def _cut(ordered: list[int], cuts: tuple[int, ...], grid: ShapeGrid, budget: int) -> list[MicroBatch] | None:
    """The batches of one way of cutting, or None where one of them is over the budget."""
    batches = []
    for start, end in pairwise(cuts):
        shape = grid.fit(end - start, ordered[end - 1])
        if shape.tokens > budget and end - start > 1:
            return None
        batches.append(MicroBatch(tuple(range(start, end)), shape))
    return batches


@given(st.lists(st.integers(1, 512), min_size=30, max_size=80), costs, grids, budgets, targets)
def test_looking_at_fewer_cuts_costs_nothing(
    rows: list[int], cost: CostModel, grid: ShapeGrid, budget: int, target_s: float
) -> None:
    planner = Planner(cost, grid, max_tokens=budget, target_batch_s=target_s)
    assert planner.seconds(planner.plan(rows)) == pytest.approx(
        _least_seconds(sorted(rows), cost, grid, budget, target_s)
    )


def _least_seconds(ordered: list[int], cost: CostModel, grid: ShapeGrid, budget: int, target_s: float) -> float:
    """Of all cuts, by looking at every micro-batch there can be."""
    best_s = [0.0]
    for end, length in enumerate(ordered, start=1):
        shapes = [(start, grid.fit(end - start, length)) for start in range(max(0, end - grid.max_rows), end)]
        best_s.append(
            min(
                best_s[start] + seconds
                for start, shape in shapes
                if ((seconds := cost.seconds(shape.rows, shape.length)) <= target_s and shape.tokens <= budget)
                or end - start == 1
            )
        )
    return best_s[-1]


@given(st.lists(st.integers(1, 512), min_size=2, max_size=12), st.lists(st.integers(1, 512), max_size=40), costs)
def test_no_row_starves_however_many_come_after_it(rows: list[int], newcomers: list[int], cost: CostModel) -> None:
    planner = Planner(cost, ANY_SHAPE, max_tokens=4096, target_batch_s=0.2)
    waiting = [(length, True) for length in rows]
    for _ in rows:  # a batch for each of them at the most: the first of those that are left is always in it
        chosen = set(planner.plan_next([length for length, _ in waiting]).rows)
        waiting = [entry for row, entry in enumerate(waiting) if row not in chosen]
        waiting += [(length, False) for length in newcomers]
        if not waiting:
            return
    assert not any(old for _, old in waiting)


@given(lengths, costs)
def test_urgent_holds_the_first_row_and_is_part_of_the_plan(rows: list[int], cost: CostModel) -> None:
    planner = Planner(cost, ANY_SHAPE, max_tokens=4096)
    plan_next = planner.plan_next(rows)
    assert 0 in plan_next.rows
    assert plan_next in planner.plan(rows)


def test_like_lengths_share_a_batch_and_odd_ones_do_not() -> None:
    planner = Planner(CostModel(0.001, 1e-4, 0.0), ANY_SHAPE, max_tokens=8192)
    assert [batch.rows for batch in planner.plan([10, 400, 11, 395, 10])] == [(4, 0, 2), (3, 1)]


def test_token_budget_from_both_sides() -> None:
    cost = CostModel(1.0, 1e-6, 0.0)
    rows = [100] * 4
    assert len(Planner(cost, ANY_SHAPE, max_tokens=400).plan(rows)) == 1
    assert len(Planner(cost, ANY_SHAPE, max_tokens=399).plan(rows)) == 2


def test_target_time_from_both_sides() -> None:
    cost = CostModel(0.25, 0.125, 0.0)
    rows = [2] * 4
    assert len(Planner(cost, ANY_SHAPE, max_tokens=8192, target_batch_s=1.25).plan(rows)) == 1
    assert len(Planner(cost, ANY_SHAPE, max_tokens=8192, target_batch_s=1.2).plan(rows)) == 2


def test_a_row_slower_than_the_target_runs_alone() -> None:
    plan = Planner(CostModel(0.0, 0.01, 0.0), ANY_SHAPE, max_tokens=8192, target_batch_s=0.2).plan([512, 8, 8])
    assert [batch.rows for batch in plan] == [(2, 1), (0,)]


@pytest.mark.parametrize(
    ("grid", "max_tokens", "target_s", "expected"),
    [
        (ANY_SHAPE, 8192, math.inf, 8192),  # 16 rows of 512
        (ANY_SHAPE, 1000, math.inf, 1000),  # 2 rows of 500
        (ANY_SHAPE, 8192, 1.0, 900),  # (1.0 s − 0.1 s) / 1 ms: 2 rows of 450
        (FIXED_SHAPES, 8192, 1.0, 512),  # 4 rows of 128
        (ANY_SHAPE, 8192, 0.1015, 0),  # 1 position in time for it, never 2 rows
        (ShapeGrid(max_rows=1, max_length=512), 8192, math.inf, 0),
    ],
)
def test_token_budget_is_the_largest_batch_of_several_rows(
    grid: ShapeGrid, max_tokens: int, target_s: float, expected: int
) -> None:
    planner = Planner(CostModel(0.1, 1e-3, 0.0), grid, max_tokens=max_tokens, target_batch_s=target_s)
    assert planner.batch_tokens == expected


def test_a_row_longer_than_the_budget_runs_alone() -> None:
    plan = Planner(CostModel(1.0, 1e-6, 0.0), ANY_SHAPE, max_tokens=64).plan([512, 8, 8])
    assert [batch.rows for batch in plan] == [(2, 1), (0,)]


def test_a_length_outside_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="length 1 to 512; received 1 and 513"):
        Planner(CostModel(1.0, 1e-6, 0.0), ANY_SHAPE, max_tokens=64).plan([513])


def test_of_equal_lengths_the_most_urgent_share_a_full_batch() -> None:
    planner = Planner(CostModel(0.1, 0.0, 0.0), ShapeGrid(max_rows=16, max_length=64), max_tokens=4096)
    assert sorted(planner.plan_next([32] * 24).rows) == list(range(16))
