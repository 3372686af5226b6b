"""The next batch runs on all cores for a lone sequence, and on one engine per core under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.engine_worker import EngineWorker
from electra_serve.batching.planner import Planner
from electra_serve.batching.worker_pool import Lane, WorkerPool
from electra_serve.tensors import BatchShape
from tests.fakes import FakeClock, FakeEngine, fake_timings
from tests.unit.batching.rig import Rig, close, iterations, make_rig


def lane(clock: FakeClock, count: int) -> Lane:
    engines = [FakeEngine() for _ in range(count)]
    planner = Planner(CostTable(fake_timings(engines[0])), max_positions=512)
    return Lane(tuple(EngineWorker(engine, "test", clock) for engine in engines), planner)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """Two engines that share the queue, and one for lone sequences."""
    made = make_rig(FakeEngine(), FakeEngine(), lone=FakeEngine())
    made.batcher.start()
    yield made
    await close(made)


def hold_all(rig: Rig) -> None:
    for engine in rig.engines:
        engine.gate.clear()


def release_all(rig: Rig) -> None:
    for engine in rig.engines:
        engine.gate.set()


def batches(rig: Rig) -> Sequence[int]:
    """Number of batches that each engine ran; the lone one is the last."""
    return [len(engine.batches) for engine in rig.engines]


async def test_a_lone_sequence_has_all_cores(rig: Rig) -> None:
    for number in range(3):
        await rig.submit([number])
    assert batches(rig) == [0, 0, 3]


async def test_an_arrival_while_a_lone_sequence_runs_gets_another_engine(rig: Rig) -> None:
    hold_all(rig)
    tasks = []
    for number in range(3):
        tasks.append(rig.submit([number] * 60))
        await iterations()
    assert rig.batcher.running_sequences == 3
    release_all(rig)
    await asyncio.gather(*tasks)
    assert batches(rig) == [1, 1, 1]


async def test_free_engines_share_the_queue(rig: Rig) -> None:
    await rig.submit(*[[number] * 60 for number in range(6)])
    assert [[len(batch.placements) for batch in engine.batches] for engine in rig.engines] == [[3], [3], []]


async def test_the_lone_engine_is_not_used_while_another_runs(rig: Rig) -> None:
    hold_all(rig)
    first = rig.submit([1] * 60, [2] * 60)
    await iterations()
    second = rig.submit([3])
    await iterations()
    rig.engines[0].gate.set()
    await second
    release_all(rig)
    await first
    assert batches(rig)[-1] == 0


async def test_every_engine_is_closed(rig: Rig) -> None:
    assert await rig.batcher.close()
    assert all(engine.closed for engine in rig.engines)


async def test_without_a_lone_engine_the_shared_ones_run_everything() -> None:
    shared = lane(FakeClock(), 2)
    chosen = WorkerPool(shared).free_slot(1, 1)
    assert chosen is not None
    assert chosen.lane is shared
    assert chosen.share == 0.5


@pytest.mark.parametrize(
    ("sequences", "positions", "alone"),
    [(1, 512, True), (1, 600, True), (2, 512, True), (2, 513, False), (3, 12, False)],
)
async def test_fewer_sequences_than_engines_share_all_cores_if_one_batch_holds_them(
    sequences: int, positions: int, alone: bool
) -> None:
    clock = FakeClock()
    shared, lone = lane(clock, 3), lane(clock, 1)
    chosen = WorkerPool(shared, lone).free_slot(sequences, positions)
    assert chosen is not None
    assert (chosen.lane is lone) == alone


async def test_each_lane_corrects_its_own_expectations() -> None:
    one, other = lane(FakeClock(), 1), lane(FakeClock(), 1)
    shape = BatchShape(1, 16)
    before = one.expected_s(shape)
    one.correction.observe(before, 1.1 * before)
    assert one.expected_s(shape) > before == other.expected_s(shape)
    assert one.sequence_s(10) > other.sequence_s(10)
