from __future__ import annotations

from benchmarks.padding_service import make_planner
from benchmarks.workload import natural_lengths
from electra_serve.batching.cost_model import CostTable
from electra_serve.settings.schema import BatchingSettings
from tests.fakes import FakeEngine, fake_timings


def test_sequences_run_in_order_of_arrival_one_per_row() -> None:
    lengths = natural_lengths(200)
    planner = make_planner(CostTable(fake_timings(FakeEngine())), BatchingSettings())
    batches = planner.plan(lengths)
    assert [sequence for batch in batches for sequence in batch.sequences] == list(range(200))
    for batch in batches:
        assert [(place.row, place.start, place.slot) for place in batch.placements] == [
            (row, 0, 0) for row in range(len(batch.sequences))
        ]
        assert [place.length for place in batch.placements] == [lengths[sequence] for sequence in batch.sequences]
        assert max(lengths[sequence] for sequence in batch.sequences) <= batch.shape.length
        assert len(batch.sequences) <= batch.shape.rows
    assert planner.plan_next(lengths) == batches[0]


def test_short_of_memory_sequences_run_alone() -> None:
    planner = make_planner(CostTable(fake_timings(FakeEngine())), BatchingSettings())
    planner.reduce_max_positions(1)
    assert [batch.shape.rows for batch in planner.plan([5, 60, 500])] == [1, 1, 1]
