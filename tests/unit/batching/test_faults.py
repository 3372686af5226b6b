"""Engines that stall, hang, end or run out of memory, and the records of their batches."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest
import structlog
from structlog.testing import capture_logs

from electra_serve.batching.engine_worker import STALL_FACTOR, STALL_SLACK_S
from electra_serve.batching.flight_recorder import BatchOutcome, BatchRecord
from electra_serve.batching.watchdog import CHECK_S
from electra_serve.errors import EngineFailure, ModelNotReady
from electra_serve.runtime.daemon_thread import abandoned
from electra_serve.tensors import Batch, RowOutput
from tests.fakes import FakeEngine
from tests.unit.batching.rig import HANG_S, Rig, close, hold, iterations, make_rig

EXPECTED_S = 0.011
"""Of a single row of one token, by the rig's cost model, nearly."""
LATE_S = STALL_FACTOR * EXPECTED_S + STALL_SLACK_S + CHECK_S


def pass_time(rig: Rig, seconds: float) -> None:
    """Moves the clock as time passes: in small steps."""
    for _ in range(int(seconds / CHECK_S) + 1):
        rig.clock.advance(CHECK_S)


async def queue_up(
    rig: Rig, sequences: int
) -> tuple[asyncio.Task[list[RowOutput]], list[asyncio.Task[list[RowOutput]]]]:
    """Holds a first request in the engine and queues so many sequences behind it, one of which fills a row.

    Each has its number, from 2 on, at all positions.
    """
    first = await hold(rig)
    waiting = [rig.submit([number] * 60) for number in range(2, 2 + sequences)]
    await iterations()
    return first, waiting


def outcomes(rig: Rig) -> list[BatchOutcome]:
    return [record.outcome for record in rig.batcher.records()]


async def test_an_engine_in_time_is_not_late(rig: Rig) -> None:
    first = await hold(rig)
    pass_time(rig, STALL_SLACK_S - CHECK_S)
    assert rig.batcher.alive
    rig.engine.gate.set()
    await first


async def test_a_late_engine_is_not_alive_until_it_is_back(rig: Rig) -> None:
    first = await hold(rig)
    pass_time(rig, LATE_S)
    assert (rig.batcher.alive, rig.batcher.failure) == (False, "")
    rig.engine.gate.set()
    await first
    pass_time(rig, CHECK_S)
    assert (rig.batcher.alive, rig.batcher.failure) == (True, "")
    await rig.submit([2])


async def test_an_engine_that_hangs_is_abandoned(rig: Rig) -> None:
    running = await hold(rig)
    waiting = [rig.submit([2]) for _ in range(3)]
    await iterations()
    pass_time(rig, LATE_S + HANG_S)
    assert rig.batcher.failure == "an engine hangs"
    with pytest.raises(EngineFailure, match="hangs"):  # may be the cause: not safe to retry
        await running
    for task in waiting:
        with pytest.raises((ModelNotReady, EngineFailure)):
            await task
    with pytest.raises(ModelNotReady):
        await rig.submit([3])
    assert (rig.batcher.queue.sequences, rig.batcher.running_sequences) == (0, 0)


async def test_an_aborted_batch_may_still_end(rig: Rig) -> None:
    running = await hold(rig)
    pass_time(rig, LATE_S + HANG_S)
    with pytest.raises(EngineFailure):
        await running
    rig.engine.gate.set()
    while not rig.engine.batches:
        await iterations()
    await iterations()
    assert rig.batcher.running_sequences == 0
    assert outcomes(rig) == [BatchOutcome.ABORTED]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_ends_is_noticed_while_it_is_idle(rig: Rig) -> None:
    await rig.submit([1])
    end_thread(rig)
    rig.clock.advance(CHECK_S)
    assert rig.batcher.failure == "an engine's thread has ended"
    assert not rig.batcher.alive


def end_thread(rig: Rig) -> None:
    """Ends the engine's idle thread, as a fault in native code would."""
    engine_thread = rig.batcher._pool.workers[0]._thread
    thread = engine_thread._thread
    engine_thread.submit(sys.exit)
    thread.join(10)
    assert not thread.is_alive()


async def test_closing_does_not_wait_for_an_engine_that_hangs() -> None:
    rig = make_rig()
    rig.batcher.start()
    running = await hold(rig)
    began = time.monotonic()
    assert not await rig.batcher.close(within_s=0.05)
    assert time.monotonic() - began < 5
    with pytest.raises(EngineFailure):
        await running
    rig.engine.gate.set()


async def test_short_memory_makes_batches_smaller_and_loses_no_row() -> None:
    rig = make_rig(FakeEngine())
    rig.engine.fail = lambda batch: short_of_memory(batch, most=4)
    rig.batcher.start()
    before = rig.batcher.batch_tokens
    first, waiting = await queue_up(rig, 8)
    rig.engine.gate.set()
    await first
    for n, task in enumerate(waiting, start=2):
        [row] = await task
        assert row.sequence_output is not None
        assert row.sequence_output[0, 0] == n
    assert rig.metric("electra_out_of_memory_total") == 1
    assert rig.batcher.batch_tokens == before // 2
    await close(rig)


async def test_the_parts_of_a_batch_for_which_memory_was_short_halve_nothing_again() -> None:
    rig = make_rig(FakeEngine())
    rig.engine.fail = lambda batch: short_of_memory(batch, most=1)
    rig.batcher.start()
    before = rig.batcher.batch_tokens
    first, waiting = await queue_up(rig, 8)
    rig.engine.gate.set()
    await asyncio.gather(first, *waiting)
    assert rig.metric("electra_out_of_memory_total") == 7, "8 sequences, then 4 and 4, then 2 and 2 and 2 and 2"
    assert rig.batcher.batch_tokens == before // 2
    await close(rig)


async def test_a_batch_packed_before_memory_ran_out_halves_nothing_again() -> None:
    rig = make_rig(FakeEngine())
    rig.engine.fail = lambda batch: short_of_memory(batch, most=4)
    rig.batcher.start()
    before = rig.batcher.batch_tokens
    rig.engine.gate.clear()
    running = [rig.submit([number] * 60) for number in range(8)]
    await iterations()
    packed = [rig.submit([number] * 60) for number in range(8)]
    await iterations()
    rig.clock.advance(1.0)  # the first eight are about to be done
    await iterations()
    assert rig.batcher.running_sequences == 16
    rig.engine.gate.set()
    await asyncio.gather(*running, *packed)
    assert rig.metric("electra_out_of_memory_total") == 2
    assert rig.batcher.batch_tokens == before // 2
    await close(rig)


async def test_retries_of_ended_requests_are_not_run(rig: Rig) -> None:
    first = await hold(rig)
    rig.engine.fail = lambda batch: short_of_memory(batch, most=1)
    waiting = [rig.submit([n]) for n in range(2, 6)]
    await iterations()
    for task in waiting[1:]:
        task.cancel()
    await iterations()
    rig.engine.gate.set()
    await first
    await waiting[0]
    assert rig.batcher.running_sequences == 0
    assert sum(len(batch.placements) for batch in rig.engine.batches) <= 2


async def test_two_engines_that_are_late_in_turn_do_not_hang() -> None:
    rig = make_rig(FakeEngine(), FakeEngine())
    rig.batcher.start()
    for engine in rig.engines:
        engine.gate.clear()
    tasks = [rig.submit([1])]
    await iterations()
    pass_time(rig, LATE_S + HANG_S / 2)
    tasks.append(rig.submit([2]))  # runs on the other one
    await iterations()
    rig.engines[0].gate.set()
    await tasks[0]
    pass_time(rig, LATE_S + HANG_S / 2)
    assert (rig.batcher.alive, rig.batcher.failure) == (False, "")
    await close(rig)


async def test_a_batch_packed_behind_one_that_hangs_is_safe_to_retry(rig: Rig) -> None:
    running = await hold(rig)
    packed = rig.submit([2])
    await iterations()
    rig.clock.advance(EXPECTED_S)  # the engine is about to be free
    await iterations()
    assert rig.batcher.running_sequences == 2
    pass_time(rig, LATE_S + HANG_S)
    with pytest.raises(EngineFailure):
        await running
    with pytest.raises(ModelNotReady):
        await packed


async def test_a_stalled_event_loop_is_not_a_stalled_engine(rig: Rig) -> None:
    """The process was suspended, or one call blocked the event loop."""
    first = await hold(rig)
    rig.clock.advance(10 * (LATE_S + HANG_S))
    assert (rig.batcher.alive, rig.batcher.failure) == (True, "")
    pass_time(rig, STALL_SLACK_S - 2 * CHECK_S)
    assert rig.batcher.alive, "the engine has all of its time again"
    rig.engine.gate.set()
    await first


async def test_many_short_stalls_of_the_event_loop_are_no_stalled_engine(rig: Rig) -> None:
    first = await hold(rig)
    for _ in range(int(STALL_SLACK_S / CHECK_S)):
        rig.clock.advance(CHECK_S + 10)
    assert rig.batcher.alive
    rig.engine.gate.set()
    await first


async def test_an_engine_that_hangs_is_noticed_after_a_stall_of_the_event_loop(rig: Rig) -> None:
    first = await hold(rig)
    rig.clock.advance(10 * (LATE_S + HANG_S))
    pass_time(rig, LATE_S)
    assert not rig.batcher.alive
    pass_time(rig, HANG_S)
    assert rig.batcher.failure == "an engine hangs"
    with pytest.raises(EngineFailure):
        await first


async def test_closing_does_not_wait_for_an_engine_that_does_not_close() -> None:
    rig = make_rig()
    rig.batcher.start()
    await rig.submit([1])
    held = threading.Event()
    rig.engine.close = lambda: held.wait(10)  # type: ignore[method-assign,assignment]
    assert not await rig.batcher.close(within_s=0.05)
    held.set()


@pytest.mark.parametrize("fault", ["hangs", "raises"])
async def test_closing_is_limited_without_a_limit_of_the_caller(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra_serve.batching.batcher.ENGINE_CLOSE_S", 0.05)
    rig = make_rig()
    rig.batcher.start()
    held = threading.Event()

    def close_engine() -> None:
        if fault == "raises":
            raise OSError("device lost")
        held.wait(10)

    rig.engine.close = close_engine  # type: ignore[method-assign]
    with capture_logs() as logs:
        rig.batcher._log = structlog.get_logger()
        assert not await rig.batcher.close()
    [line] = [entry for entry in logs if entry["event"] == "engine not closed"]
    assert {"hangs": "still closing after 0.05 s", "raises": "OSError('device lost')"}[fault] == line["reason"]
    assert rig.batcher.failure == "", "a model that goes away does not end the process"
    assert abandoned() or fault == "raises"  # then the thread is about to end
    held.set()
    while abandoned():
        await iterations()


def short_of_memory(batch: Batch, *, most: int) -> None:
    if len(batch.placements) > most:
        raise MemoryError


async def test_a_row_for_which_memory_is_short_even_alone_fails_alone(rig: Rig) -> None:
    tokens = rig.batcher.batch_tokens
    rig.engine.fail = lambda batch: short_of_memory(batch, most=0)
    with pytest.raises(EngineFailure):
        await rig.submit([1, 2, 3])
    assert rig.batcher.batch_tokens == tokens, "no smaller batch would have helped"
    assert outcomes(rig) == [BatchOutcome.OUT_OF_MEMORY]


async def test_the_recorder_has_the_outcome_of_batches_and_not_their_content(rig: Rig) -> None:
    rig.engine.poison = {66}
    await rig.submit([1, 2, 3])
    with pytest.raises(EngineFailure):
        await rig.submit([66])
    running = await hold(rig)
    records = rig.batcher.records()
    assert [record.outcome for record in records] == [
        BatchOutcome.OK, BatchOutcome.NON_FINITE, BatchOutcome.RUNNING,
    ]  # fmt: skip
    first = records[0]
    assert (first.sequences, first.rows, first.length, first.real_tokens) == (1, 1, 16, 3)
    assert first.outputs == ("sequence_output",)
    assert first.seconds is not None
    assert first.started_at is not None
    assert records[1].non_finite_rows == 1
    assert (records[2].ended_at, records[2].seconds) == (None, None)
    assert all(not isinstance(getattr(first, name), (bytes, list)) for name in BatchRecord.__slots__)
    rig.engine.gate.set()
    await running


async def test_no_more_is_recorded_than_asked_for(rig: Rig) -> None:
    for _ in range(20):
        await rig.submit([1])
    assert len(rig.batcher.records()) == 16
