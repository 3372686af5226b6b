"""Plans are complete, within limits, and cost no more than simple ones."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.planner import BatchPlan, Planner
from electra_serve.batching.row_packing import first_fit
from electra_serve.engine.shapes import ShapeLimits, cpu_shapes, gpu_shapes
from electra_serve.tensors import SLOT_POSITIONS, Batch, BatchShape, Encoding

CPU_SHAPES = cpu_shapes(ShapeLimits(max_length=512, max_positions=8192))
GPU_SHAPES = gpu_shapes(ShapeLimits(max_length=512, max_positions=8192))
FEW_SHAPES = (BatchShape(1, 16), BatchShape(3, 64), BatchShape(1, 512), BatchShape(5, 128))
"""No single rows of 64 and 128."""
SLACK = 1 + 1e-6
"""Sums in another order differ a little."""


def table(shapes: tuple[BatchShape, ...], batch_s: float, position_s: float, pair_s: float = 0.0) -> CostTable:
    return CostTable({s: batch_s + position_s * s.positions + pair_s * s.positions * s.length for s in shapes})


@st.composite
def noisy_tables(draw: st.DrawFn) -> CostTable:
    """Timings of which some are off by a factor, so that longer shapes may be faster."""
    shapes = draw(st.sampled_from([CPU_SHAPES, GPU_SHAPES, FEW_SHAPES]))
    costs = table(shapes, draw(st.floats(1e-4, 1e-2)), draw(st.floats(1e-7, 1e-4)), draw(st.floats(0, 1e-7)))
    noise = draw(st.lists(st.floats(0.2, 5), min_size=len(shapes), max_size=len(shapes)))
    return CostTable({shape: costs.seconds(shape) * factor for shape, factor in zip(shapes, noise, strict=True)})


smooth_tables = st.builds(
    table,
    st.sampled_from([CPU_SHAPES, GPU_SHAPES, FEW_SHAPES]),
    st.floats(1e-4, 1e-2),
    st.floats(1e-7, 1e-4),
    st.floats(0, 1e-7),
)
tables = smooth_tables | noisy_tables()


def texts(count: int, seed: int) -> list[int]:
    """Lengths like those of texts: half below 30, some of hundreds."""
    draw = random.Random(seed)
    return [min(512, int(draw.lognormvariate(3.2, 0.9)) + 4) for _ in range(count)]


windows = (
    st.lists(st.integers(1, 512), min_size=1, max_size=30)
    | st.lists(st.integers(1, 512), min_size=80, max_size=128)
    | st.lists(st.integers(30, 70), min_size=1, max_size=128)
    | st.builds(texts, st.integers(1, 128), st.integers(0, 1000))
)
limits = st.integers(1, 10_000)
targets = st.floats(0.001, 0.2) | st.just(math.inf)
planners = st.builds(
    lambda costs, most, target_s: Planner(costs, max_positions=most, target_batch_s=target_s), tables, limits, targets
)


def shared_shapes(planner: Planner, target_s: float = math.inf) -> list[BatchShape]:
    return [
        shape
        for shape in planner.costs.shapes
        if shape.positions <= planner.max_positions and planner.costs.seconds(shape) <= target_s
    ]


@given(planners, windows)
def test_each_sequence_is_planned_once_and_fits(planner: Planner, lengths: list[int]) -> None:
    plan = planner.plan(lengths)
    assert sorted(sequence for batch in plan for sequence in batch.sequences) == list(range(len(lengths)))
    for batch in plan:
        assert batch.shape in planner.costs.shapes
        assert batch.sequences == tuple(sorted(batch.sequences))
        assert [place.length for place in batch.placements] == [lengths[sequence] for sequence in batch.sequences]
        assert_placed(batch)


def assert_placed(batch: BatchPlan) -> None:
    """Slots are 0, 1, 2, … in each row, contiguous up to the minimum slot length, and within the row."""
    ends: dict[int, tuple[int, int]] = {}
    for place in batch.placements:
        slot, start = ends.get(place.row, (0, 0))
        assert (place.slot, place.start) == (slot, start)
        ends[place.row] = slot + 1, start + max(place.length, SLOT_POSITIONS)
        assert place.row < batch.shape.rows
        assert place.slot < batch.shape.slots
        assert place.start + place.length <= batch.shape.length


@given(tables, limits, targets, windows)
def test_shared_batches_keep_within_both_bounds(
    costs: CostTable, most: int, target_s: float, lengths: list[int]
) -> None:
    planner = Planner(costs, max_positions=most, target_batch_s=target_s)
    for batch in planner.plan(lengths):
        if len(batch.sequences) > 1:
            assert batch.shape.positions <= min(most, planner.batch_positions)
            assert costs.seconds(batch.shape) <= target_s


@given(planners, windows)
def test_next_batch_is_the_first_of_the_plan_and_holds_the_most_urgent(planner: Planner, lengths: list[int]) -> None:
    batch = planner.plan_next(lengths)
    assert batch.sequences[0] == 0
    assert batch == planner.plan(lengths)[0]


@given(tables, limits, targets, windows)
def test_costs_no_more_than_one_sequence_per_row(
    costs: CostTable, most: int, target_s: float, lengths: list[int]
) -> None:
    planner = Planner(costs, max_positions=most, target_batch_s=target_s)
    shared = shared_shapes(planner, target_s)
    sharing, alone_s = split(costs, shared, lengths)
    row_lengths = [min(shape.length for shape in shared if shape.length >= need) for need in sharing]
    rows_s = sum(
        equal_rows_seconds(costs, shared, length, row_lengths.count(length)) for length in sorted(set(row_lengths))
    )
    assert planner.seconds(planner.plan(lengths)) <= (rows_s + alone_s) * SLACK


@given(tables, limits, targets, windows)
def test_costs_no_more_than_first_fit_in_arrival_order(
    costs: CostTable, most: int, target_s: float, lengths: list[int]
) -> None:
    planner = Planner(costs, max_positions=most, target_batch_s=target_s)
    shared = shared_shapes(planner, target_s)
    sharing, alone_s = split(costs, shared, lengths)
    planned_s = planner.seconds(planner.plan(lengths))
    for length in sorted({shape.length for shape in shared if shape.length >= max(sharing, default=0)}):
        rows = first_fit(sharing, range(len(sharing)), length).rows
        assert planned_s <= (equal_rows_seconds(costs, shared, length, len(rows)) + alone_s) * SLACK


def test_one_sequence_per_row_is_tried_if_estimates_mislead() -> None:
    costs = CostTable({BatchShape(1, 50): 0.45, BatchShape(1, 110): 0.95, BatchShape(1, 128): 1.0})
    plan = Planner(costs, max_positions=8192).plan([50] * 127 + [128])  # longer rows hold two, not two and a half
    assert {batch.shape for batch in plan[:-1]} == {BatchShape(1, 50)}


@pytest.mark.parametrize(("length", "per_row"), [(65, 1), (60, 2), (40, 3), (25, 5), (16, 8)])
def test_equal_sequences_take_the_fewest_rows(length: int, per_row: int) -> None:
    planner = Planner(CostTable({BatchShape(1, 128): 1.0, BatchShape(4, 128): 3.0}), max_positions=8192)
    assert planner.seconds(planner.plan([length] * 4 * per_row)) == 3.0


def test_first_fit_is_tried_if_it_may_need_fewer_rows() -> None:
    planner = Planner(CostTable({BatchShape(1, 20): 1.0}), max_positions=8192)
    plan = planner.plan([4, 12, 6, 4, 10, 4])  # best-fit decreasing: 12 + 6, 10 + 4 + 4, 4
    assert [batch.sequences for batch in plan] == [(0, 1, 3), (2, 4, 5)]


def split(costs: CostTable, shared: list[BatchShape], lengths: list[int]) -> tuple[list[int], float]:
    """Positions of the sequences that fit a shared shape, and the seconds of the others, one by one."""
    needs = [max(length, SLOT_POSITIONS) for length in lengths]
    longest = max((shape.length for shape in shared), default=0)
    alone_s = sum(
        min(costs.seconds(shape) for shape in costs.shapes if shape.rows == 1 and shape.length >= need)
        for need in needs
        if need > longest
    )
    return [need for need in needs if need <= longest], alone_s


def equal_rows_seconds(costs: CostTable, shared: list[BatchShape], length: int, count: int) -> float:
    """Least seconds of `count` rows in shapes of exactly that length."""
    best_s = [0.0]
    for rows in range(1, count + 1):
        best_s.append(min(costs.seconds(s) + best_s[max(0, rows - s.rows)] for s in shared if s.length == length))
    return best_s[count]


@given(smooth_tables, st.lists(st.integers(1, 512), min_size=1, max_size=5))
def test_no_plan_is_cheaper_than_the_best_of_all(costs: CostTable, lengths: list[int]) -> None:
    planner = Planner(costs, max_positions=8192)
    assert planner.seconds(planner.plan(lengths)) >= least_seconds(costs, lengths) / SLACK


@pytest.mark.parametrize(
    "costs",
    [
        table(CPU_SHAPES, 1e-3, 1.65e-5, 1.9e-8),  # bfloat16 on two cores with AMX
        table(CPU_SHAPES, 5e-4, 8e-5, 3e-8),  # float32
        table(GPU_SHAPES, 1.5e-3, 1e-6, 2e-11),
    ],
    ids=["bfloat16", "float32", "gpu"],
)
def test_small_windows_are_within_two_percent_of_the_best(costs: CostTable) -> None:
    planner = Planner(costs, max_positions=8192)
    ratios = []
    for seed in range(30):
        lengths = texts(1 + seed % 6, seed)
        ratios.append(planner.seconds(planner.plan(lengths)) / least_seconds(costs, lengths))
    assert np.mean(ratios) <= 1.02


@pytest.mark.parametrize("count", [32, 64, 128])
def test_windows_of_texts_fill_their_batches(count: int) -> None:
    planner = Planner(table(CPU_SHAPES, 1e-3, 1.65e-5, 1.9e-8), max_positions=8192)
    windows = [texts(count, seed) for seed in range(10)]
    positions = sum(batch.shape.positions for lengths in windows for batch in planner.plan(lengths))
    assert positions <= 1.06 * sum(map(sum, windows))


def least_seconds(costs: CostTable, lengths: list[int]) -> float:
    """Least seconds of all plans, by trying every packing into rows and every way of taking the longest rows next."""

    @cache
    def least(used: tuple[int, ...]) -> float:
        return min(
            (
                costs.seconds(shape) + least(used[: max(0, len(used) - shape.rows)])
                for shape in costs.shapes
                if used and shape.length >= used[-1]
            ),
            default=0.0 if not used else math.inf,
        )

    needs = [max(length, SLOT_POSITIONS) for length in lengths]
    return min(least(packed) for packed in {tuple(sorted(sum(row) for row in rows)) for rows in partitions(needs)})


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    first, *others = items
    for groups in partitions(others):
        yield [[first], *groups]
        for at, group in enumerate(groups):
            yield [*groups[:at], [first, *group], *groups[at + 1 :]]


@given(
    st.lists(st.integers(1, 512), min_size=2, max_size=12), st.lists(st.integers(1, 512), max_size=40), smooth_tables
)
def test_no_sequence_starves_behind_later_arrivals(lengths: list[int], newcomers: list[int], costs: CostTable) -> None:
    planner = Planner(costs, max_positions=4096, target_batch_s=0.2)
    waiting = [(length, True) for length in lengths]
    for _ in lengths:  # each batch holds the first remaining sequence, so there are no more batches than sequences
        chosen = set(planner.plan_next([length for length, _ in waiting]).sequences)
        waiting = [entry for sequence, entry in enumerate(waiting) if sequence not in chosen]
        waiting += [(length, False) for length in newcomers]
        if not waiting:
            return
    assert not any(early for _, early in waiting)


def test_plans_can_be_packed() -> None:
    lengths = [60, 3, 200, 1, 17, 30, 8, 90]
    sequences = [Encoding(ids, ids * 0, ids * 0 + 1, len(ids), len(ids)) for n in lengths for ids in [_ids(n)]]
    for plan in Planner(table(CPU_SHAPES, 1e-3, 1e-5), max_positions=8192).plan(lengths):
        batch = Batch.pack([sequences[sequence] for sequence in plan.sequences], plan.placements, plan.shape)
        assert int(np.count_nonzero(batch.token_ids)) == sum(lengths[sequence] for sequence in plan.sequences)


def _ids(count: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.arange(1, count + 1, dtype=np.int32)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([20], [(BatchShape(1, 32), (0,))]),
        ([20, 20, 20], [(BatchShape(1, 64), (0, 1, 2))]),
        ([1] * 16, [(BatchShape(1, 64), tuple(range(16)))]),
        ([128] * 4, [(BatchShape(4, 128), (0, 1, 2, 3))]),
        ([128, 128, 128, 128, 10], [(BatchShape(4, 128), (0, 1, 2, 3)), (BatchShape(1, 16), (4,))]),
        ([300, 80, 4], [(BatchShape(1, 384), (0, 1, 2))]),
        ([], []),
    ],
)
def test_small_windows(lengths: list[int], expected: list[tuple[BatchShape, tuple[int, ...]]]) -> None:
    planner = Planner(table(CPU_SHAPES, 1e-3, 1.65e-5, 1.9e-8), max_positions=8192)
    assert [(batch.shape, batch.sequences) for batch in planner.plan(lengths)] == expected


def test_the_most_urgent_of_equals_share_the_fullest_batch() -> None:
    planner = Planner(table(CPU_SHAPES, 1e-3, 1.65e-5, 1.9e-8), max_positions=512)
    assert [batch.sequences for batch in planner.plan([64] * 10)] == [tuple(range(8)), (8, 9)]


def test_shapes_of_max_positions_are_shared() -> None:
    costs = table(CPU_SHAPES, 1.0, 1e-6)
    assert len(Planner(costs, max_positions=512).plan([120] * 4)) == 1
    assert len(Planner(costs, max_positions=511).plan([120] * 4)) == 2


def test_shapes_of_target_seconds_are_shared() -> None:
    costs = CostTable({BatchShape(1, 128): 0.25, BatchShape(2, 128): 0.375})
    assert len(Planner(costs, max_positions=8192, target_batch_s=0.375).plan([100] * 2)) == 1
    assert len(Planner(costs, max_positions=8192, target_batch_s=0.374).plan([100] * 2)) == 2


@pytest.mark.parametrize(("max_positions", "target_s"), [(64, math.inf), (8192, 0.0021)], ids=["positions", "seconds"])
def test_a_sequence_that_fits_no_shared_shape_runs_alone(max_positions: int, target_s: float) -> None:
    planner = Planner(table(CPU_SHAPES, 1e-3, 1.65e-5), max_positions=max_positions, target_batch_s=target_s)
    plan = planner.plan([8, 450, 400, 300, 8])
    assert [(batch.shape, batch.sequences) for batch in plan] == [
        (BatchShape(1, 16), (0, 4)),
        (BatchShape(1, 512), (1,)),
        (BatchShape(1, 512), (2,)),
        (BatchShape(1, 384), (3,)),
    ]


def test_one_position_is_no_batching() -> None:
    planner = Planner(table(CPU_SHAPES, 1e-3, 1e-5), max_positions=1)
    assert planner.batch_positions == 0
    assert [(batch.shape, batch.sequences) for batch in planner.plan([1, 1, 20])] == [
        (BatchShape(1, 16), (0,)),
        (BatchShape(1, 16), (1,)),
        (BatchShape(1, 32), (2,)),
    ]


def test_a_lone_sequence_takes_the_cheapest_single_row() -> None:
    costs = CostTable({BatchShape(1, 32): 0.2, BatchShape(1, 48): 0.1, BatchShape(2, 16): 0.05})
    assert Planner(costs, max_positions=1).plan_next([16]).shape == BatchShape(1, 48)


def test_fewer_positions_from_now_on() -> None:
    planner = Planner(table(CPU_SHAPES, 1.0, 1e-6), max_positions=1024)
    assert planner.batch_positions == 1024
    planner.reduce_max_positions(200)
    assert (planner.max_positions, planner.batch_positions) == (200, 192)
    assert max(batch.shape.positions for batch in planner.plan([30] * 40)) <= 192


@pytest.mark.parametrize(
    ("shapes", "max_positions", "target_s", "expected"),
    [
        (CPU_SHAPES, 8192, math.inf, 1024),
        (CPU_SHAPES, 500, math.inf, 384),
        (CPU_SHAPES, 8192, 0.1 + 256e-3, 256),
        (CPU_SHAPES, 8192, 0.1, 0),
        ((BatchShape(1, 4), BatchShape(1, 7)), 8192, math.inf, 0),  # a slot each
        ((BatchShape(1, 4), BatchShape(1, 8)), 8192, math.inf, 8),
        ((BatchShape(1, 4), BatchShape(2, 4)), 8192, math.inf, 8),
    ],
)
def test_batch_positions_are_those_of_the_largest_shared_shape(
    shapes: tuple[BatchShape, ...], max_positions: int, target_s: float, expected: int
) -> None:
    planner = Planner(table(shapes, 0.1, 1e-3), max_positions=max_positions, target_batch_s=target_s)
    assert planner.batch_positions == expected


def test_one_more_sequence_adds_its_positions_at_the_best_rate() -> None:
    costs = CostTable({BatchShape(1, 16): 0.16, BatchShape(4, 16): 0.32, BatchShape(1, 64): 0.64})
    planner = Planner(costs, max_positions=64)
    assert planner.sequence_seconds(10) == pytest.approx(10 * 0.005)
    assert planner.sequence_seconds(1) == pytest.approx(SLOT_POSITIONS * 0.005)
    assert planner.sequence_seconds(17) == pytest.approx(17 * 0.01)
    planner.reduce_max_positions(63)
    assert planner.sequence_seconds(17) == pytest.approx(0.64)


@pytest.mark.parametrize("length", [0, -1, 513])
def test_a_length_outside_the_table_is_rejected(length: int) -> None:
    planner = Planner(table(CPU_SHAPES, 1.0, 1e-6), max_positions=64)
    message = f"length must be 1 to 512; got {length}"
    for call in (planner.plan, planner.plan_next):
        with pytest.raises(ValueError, match=message):
            call([5, length, 7])
    with pytest.raises(ValueError, match=message):
        planner.sequence_seconds(length)


def test_shared_rows_do_not_lengthen_single_ones() -> None:
    costs = CostTable({BatchShape(1, 16): 0.1, BatchShape(2, 32): 0.2})
    with pytest.raises(ValueError, match="length must be 1 to 16; got 17"):
        Planner(costs, max_positions=64).plan([17])


def test_there_is_no_next_batch_of_nothing() -> None:
    with pytest.raises(ValueError, match="lengths must have at least one item; got none"):
        Planner(table(CPU_SHAPES, 1.0, 1e-6), max_positions=64).plan_next([])
