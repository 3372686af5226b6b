"""Each row gets exactly one result, in spite of engine faults, cancellations and deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_serve.batching.admission import MIN_WAIT_S
from electra_serve.batching.planner import Planner
from electra_serve.errors import DeadlineExceeded, EngineFailure, InternalError, ModelNotReady, Overloaded, ShuttingDown
from electra_serve.tensors import ENCODER_OUTPUTS, Batch, BatchShape, ModelOutput, Output, Outputs, RowOutput
from tests.fakes import FakeEngine, encoding
from tests.unit.batching.rig import SEQUENCE, Rig, close, hold, iterations, make_rig

CLS: Outputs = frozenset({Output.CLS})


async def test_rows_come_back_in_order(rig: Rig) -> None:
    rows = await rig.submit([5, 6, 7], [8], [9, 10])
    assert [row.get(Output.SEQUENCE)[:, 0].tolist() for row in rows] == [[5, 6, 7], [8], [9, 10]]


async def test_masked_tail_is_not_computed_and_comes_back_as_zeros(rig: Rig) -> None:
    [row] = await rig.batcher.submit([encoding(5, 6, masked_tail=3)], SEQUENCE)
    assert rig.engine.batches[0].shape.length == 16
    assert row.get(Output.SEQUENCE)[:, 0].tolist() == [5, 6, 0, 0, 0]


async def test_an_idle_engine_starts_at_once(rig: Rig) -> None:
    await rig.submit([1, 2])
    assert rig.clock.now() == 100.0


async def test_arrivals_within_a_few_iterations_share_a_batch(rig: Rig) -> None:
    first = rig.submit([1, 2])
    await iterations(3)
    second = rig.submit([3, 4])
    await asyncio.gather(first, second)
    assert rig.ran == [[[1, 2], [3, 4]]]


async def test_a_passed_deadline_fails_at_once(rig: Rig) -> None:
    with pytest.raises(DeadlineExceeded):
        await rig.batcher.submit([encoding(1)], SEQUENCE, timeout_s=0.0)
    assert rig.engine.batches == []


async def test_an_estimated_start_after_the_deadline_is_rejected_at_once(rig: Rig) -> None:
    """A batch of one row of 16 positions takes 11.6 ms by the cost table: 5 ms have passed."""
    await hold(rig)
    rig.clock.advance(0.005)
    with pytest.raises(Overloaded) as rejection:
        await rig.batcher.submit([encoding(1)], SEQUENCE, timeout_s=0.0065)
    assert rejection.value.retry_after_s == MIN_WAIT_S
    rig.submit([1], timeout_s=0.0067)
    await iterations()
    assert rig.batcher.queue.sequences + rig.batcher.running_sequences == 2


async def test_an_engine_that_takes_longer_than_expected_delays_no_other(rig: Rig) -> None:
    await hold(rig)
    rig.clock.advance(10.0)
    rig.submit([1], timeout_s=0.001)
    await iterations()
    assert rig.batcher.queue.sequences + rig.batcher.running_sequences == 2


async def test_arrivals_without_end_do_not_hold_the_first_one_back(rig: Rig) -> None:
    first = rig.submit([1])
    while not first.done():
        rig.submit([2])
        rig.clock.advance(0.0004)
        await iterations(1)
    assert len(rig.engine.batches[0].placements) <= 4


async def test_short_sequences_share_a_row_and_a_long_one_runs_apart(rig: Rig) -> None:
    first = await hold(rig)
    others = [rig.submit([2] * 4), rig.submit([3] * 510), rig.submit([4] * 4)]
    await iterations()
    rig.engine.gate.set()
    await asyncio.gather(first, *others)
    assert [batch.shape.length for batch in rig.engine.batches] == [16, 16, 512]
    assert rig.engine.batches[1].token_ids[0, :8].tolist() == [2] * 4 + [4] * 4


async def test_no_more_is_chosen_than_the_engine_can_take_soon(rig: Rig) -> None:
    await hold(rig)
    rig.submit([2])
    await iterations()
    assert rig.batcher.queue.sequences == 1
    rig.clock.advance(0.0072)  # the batch is expected to take 11.6 ms; the next is planned 2 ms before 80 % of that
    await iterations()
    assert rig.batcher.queue.sequences == 1
    rig.clock.advance(0.0002)
    await iterations()
    assert rig.batcher.queue.sequences == 0
    rig.submit([3])
    rig.clock.advance(10)
    await iterations()
    assert rig.batcher.queue.sequences == 1  # one runs, one is packed: the third stays queued


async def test_a_batch_computes_the_outputs_of_all_rows_and_each_gets_its_own(rig: Rig) -> None:
    first = await hold(rig)
    pooled = rig.submit([2, 2], outputs=frozenset({Output.POOLED}))
    mean = rig.submit([3, 3], outputs=frozenset({Output.MEAN}))
    await iterations()
    rig.engine.gate.set()
    await asyncio.gather(first, pooled, mean)
    assert rig.engine.requested[1] == {Output.POOLED, Output.MEAN}
    [row] = pooled.result()
    assert row.pooled_output is not None
    assert row.mean_output is None


async def test_priority_overtakes(rig: Rig) -> None:
    first = await hold(rig)
    stalled = [rig.submit([2] * 510, priority=2), rig.submit([3] * 10, priority=0)]
    await iterations()
    rig.engine.gate.set()
    await asyncio.gather(first, *stalled)
    assert [int(batch.token_ids[0, 0]) for batch in rig.engine.batches] == [1, 3, 2]


async def test_a_failing_row_fails_alone(rig: Rig) -> None:
    def fail(batch: Batch) -> None:
        if 13 in batch.token_ids:
            raise RuntimeError("bad row")

    rig.engine.fail = fail
    first = await hold(rig)
    others = [rig.submit([n]) for n in (10, 11, 12, 13, 14, 15)]
    await iterations()
    rig.engine.gate.set()
    await first
    results = await asyncio.gather(*others, return_exceptions=True)
    failed = results.pop(3)
    assert isinstance(failed, EngineFailure)
    assert isinstance(failed.__cause__, RuntimeError)
    assert [rows[0].get(Output.SEQUENCE)[0, 0] for rows in results if isinstance(rows, list)] == [10, 11, 12, 14, 15]
    assert rig.metric("electra_engine_failures_total") == 3  # all 6 rows, then half of them, then the row alone


async def test_retries_run_before_queued_rows_and_one_batch_at_a_time(rig: Rig) -> None:
    first = await hold(rig)
    batch = [rig.submit([id_]) for id_ in (11, 12, 13, 66)]
    await iterations()
    rig.engine.fail = _fail_on(66)
    rig.clock.advance(1)  # the first is about to end: the four are planned
    await iterations()
    later = rig.submit([21], priority=0)
    rig.engine.gate.set()
    await asyncio.gather(first, *batch, later, return_exceptions=True)
    ran = [[sequence[0] for sequence in batch] for batch in rig.ran]
    assert ran == [[1], [11, 12, 13, 66], [11, 12], [13, 66], [13], [66], [21]]


def _fail_on(id_: int) -> Callable[[Batch], None]:
    def fail(batch: Batch) -> None:
        if id_ in batch.token_ids:
            raise RuntimeError("bad row")

    return fail


async def test_a_request_fails_as_a_whole_with_its_failing_row(rig: Rig) -> None:
    rig.engine.poison = {13}
    with pytest.raises(EngineFailure, match="not finite"):
        await rig.submit([1], [13], [2])
    assert rig.metric("electra_non_finite_rows_total") == 1


async def test_a_non_finite_sequence_does_not_hurt_those_of_its_row(rig: Rig) -> None:
    rig.engine.poison = {13}
    first = await hold(rig)
    good, bad = rig.submit([7]), rig.submit([13])
    await iterations()
    rig.engine.gate.set()
    await first
    assert (await good)[0].get(Output.SEQUENCE)[0, 0] == 7
    with pytest.raises(EngineFailure):
        await bad
    assert rig.ran == [[[1]], [[7], [13]], [[7]], [[13]]]
    assert rig.metric("electra_non_finite_rows_total") == 1
    assert (rig.batcher.running_sequences, rig.batcher.queue.sequences) == (0, 0)


async def test_a_non_finite_sequence_that_has_a_row_to_itself_is_not_run_again(rig: Rig) -> None:
    rig.engine.poison = {13}
    first = await hold(rig)
    good, bad = rig.submit([7] * 60), rig.submit([13] * 60)
    await iterations()
    rig.engine.gate.set()
    await asyncio.gather(first, good)
    with pytest.raises(EngineFailure):
        await bad
    assert [len(batch) for batch in rig.ran] == [1, 2]


async def test_a_cancelled_request_leaves_the_queue_and_its_neighbours_alone(rig: Rig) -> None:
    first = await hold(rig)
    gone, stays = rig.submit([2], [3]), rig.submit([4])
    await iterations()
    gone.cancel()
    await iterations()
    assert (rig.batcher.queue.sequences, rig.batcher.queue.tokens) == (1, 1)
    rig.engine.gate.set()
    await asyncio.gather(first, stays)
    assert rig.ran == [[[1]], [[4]]]


async def test_a_request_cancelled_while_it_runs_does_not_hurt_its_batch(rig: Rig) -> None:
    first = await hold(rig)
    gone, stays = rig.submit([2]), rig.submit([3])
    rig.clock.advance(1)
    await iterations()
    assert rig.batcher.queue.sequences == 0
    gone.cancel()
    await iterations()
    rig.engine.gate.set()
    await asyncio.gather(first, stays)
    assert stays.result()[0].get(Output.SEQUENCE)[0, 0] == 3


async def test_an_expired_request_fails_at_its_deadline_and_never_runs(rig: Rig) -> None:
    first = await hold(rig)
    hurried = rig.submit([2], timeout_s=0.5)
    await iterations()
    # The worker is free now; let the deadline pass in the same instant.
    rig.clock.advance(0.5)
    await iterations()
    with pytest.raises(DeadlineExceeded):
        await hurried
    rig.engine.gate.set()
    await first
    await iterations()
    assert rig.ran == [[[1]]]


async def test_overload_rejects_and_leaves_nothing_behind() -> None:
    rig = make_rig(max_sequences=2)
    rig.batcher.start()
    await hold(rig)
    rig.submit([2], [3])
    await iterations()
    rejected = rig.submit([4])
    with pytest.raises(Overloaded):
        await rejected
    assert rig.batcher.queue.sequences == 2
    await close(rig)


async def test_retry_after_follows_recent_batch_times() -> None:
    rig = make_rig(max_sequences=1)
    rig.batcher.start()
    for _ in range(20):
        await rig.submit([1])  # in microseconds, while the cost model expects 10 ms
    await hold(rig)
    for row in ([2], [2] * 500):  # one batch is packed, and one row is queued
        rig.submit(row)
        await iterations()
    with pytest.raises(Overloaded) as rejected:
        await rig.submit([3])
    assert rejected.value.retry_after_s is not None
    assert rejected.value.retry_after_s < rig.batcher.costs.seconds(BatchShape(1, 512)) / 2
    await close(rig)


async def test_rejecting_completes_admitted_requests(rig: Rig) -> None:
    first = await hold(rig)
    admitted = rig.submit([2])
    await iterations()
    rig.batcher.reject()
    with pytest.raises(ShuttingDown):
        await rig.submit([3])
    rig.engine.gate.set()
    await asyncio.gather(first, admitted)


async def test_rejecting_accepts_further_parts_of_an_admitted_request_until_the_end(rig: Rig) -> None:
    rig.batcher.reject()
    with pytest.raises(ShuttingDown):
        rig.batcher.ensure_open()
    sequence = encoding(3)
    with rig.batcher.reserve("a", 1, admitted=True):
        assert len(await rig.batcher.submit([sequence], SEQUENCE, admitted=True)) == 1
    await rig.batcher.close()
    with pytest.raises(ShuttingDown):
        await rig.batcher.submit([sequence], SEQUENCE, admitted=True)


async def test_closing_fails_queued_rows_completes_running_ones_and_closes_the_engine() -> None:
    rig = make_rig()
    rig.batcher.start()
    first = await hold(rig)
    waiting = rig.submit([2])
    await iterations()
    closing = asyncio.create_task(rig.batcher.close())
    await iterations()
    rig.engine.gate.set()
    await closing
    assert len(await first) == 1
    with pytest.raises(ShuttingDown):
        await waiting
    assert rig.engine.closed
    assert not rig.batcher.alive


async def test_closing_again_waits_for_the_same_end() -> None:
    rig = make_rig()
    rig.batcher.start()
    rig.engine.close_gate.clear()
    given_up, second, third = (asyncio.create_task(rig.batcher.close()) for _ in range(3))
    await iterations()
    given_up.cancel()
    await iterations()
    assert (given_up.cancelled(), second.done(), third.done()) == (True, False, False)
    rig.engine.close_gate.set()
    async with asyncio.timeout(30):
        assert all(await asyncio.gather(second, third, rig.batcher.close()))
    assert rig.engine.closings == 1


async def test_two_engines_share_one_queue() -> None:
    rig = make_rig(FakeEngine(), FakeEngine())
    rig.batcher.start()
    for engine in rig.engines:
        engine.gate.clear()
    first, second = rig.submit([1]), rig.submit([2] * 500)
    await iterations()
    assert rig.batcher.running_sequences == 2
    for engine in rig.engines:
        engine.gate.set()
    await asyncio.gather(first, second)
    assert [len(engine.batches) for engine in rig.engines] == [1, 1]
    await close(rig)


class ForgetfulEngine(FakeEngine):
    """Computes only [CLS] for any request."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        return super().run(batch, CLS)


async def test_a_missing_output_fails_its_rows_and_not_the_batcher() -> None:
    rig = make_rig(ForgetfulEngine())
    rig.batcher.start()
    with pytest.raises(InternalError):
        await rig.submit([1])
    assert rig.batcher.alive
    assert len(await rig.submit([2], outputs=CLS)) == 1
    await close(rig)


async def test_a_planner_that_fails_is_seen_by_probes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, lengths: Sequence[int]) -> None:
        raise ValueError(f"{len(lengths)} sequences")

    monkeypatch.setattr(Planner, "plan_next", fail)
    waiting = rig.submit([1])
    await iterations()
    assert not rig.batcher.alive
    with pytest.raises(InternalError):
        await waiting
    with pytest.raises(ModelNotReady):
        await rig.submit([1])
    assert rig.batcher.failure == "ValueError while planning a batch"
    assert rig.batcher.queue.sequences == 0


class FullDisk:
    """A log that cannot be written."""

    def error(self, event: str, **_: object) -> None:
        raise OSError(event)

    exception = error


async def test_a_failing_log_leaves_no_request_pending() -> None:
    rig = make_rig(log=FullDisk())

    def fail(_: Batch) -> None:
        raise RuntimeError("engine")

    rig.engine.fail = fail
    rig.batcher.start()
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context["exception"]))
    with pytest.raises(InternalError):
        await rig.submit([1, 2])
    assert rig.batcher.running_sequences == 0
    await close(rig)
    assert all(isinstance(error, OSError) for error in unheard)


async def test_batches_are_counted(rig: Rig) -> None:
    await rig.submit([1, 2, 3])
    assert rig.metric("electra_real_tokens_total") == 3
    assert rig.metric("electra_padded_tokens_total") == 16
    assert rig.metric("electra_batch_sequences_count") == 1
    assert rig.metric("electra_compute_seconds_count") == 1
    assert rig.metric("electra_queue_wait_seconds_count") == 1


@dataclass(frozen=True)
class Call:
    rows: list[list[int]]
    cancel: bool
    outputs: Outputs


POISON, BOMB = 98, 99
rows = st.lists(st.integers(1, 90) | st.sampled_from([POISON, BOMB]), min_size=1, max_size=6)
calls = st.builds(
    Call,
    st.lists(rows, min_size=1, max_size=4),
    st.booleans(),
    st.sets(st.sampled_from(sorted(ENCODER_OUTPUTS)), min_size=1).map(frozenset),
)


@given(st.lists(calls, min_size=1, max_size=12), st.integers(1, 2))
@settings(deadline=None, max_examples=60)
def test_every_admitted_row_gets_exactly_one_result(script: list[Call], engines: int) -> None:
    asyncio.run(_play(script, engines))


async def _play(script: list[Call], engines: int) -> None:
    rig = make_rig(*(FakeEngine() for _ in range(engines)), max_sequences=20)

    def explode(batch: Batch) -> None:
        if BOMB in batch.token_ids:
            raise RuntimeError("boom")

    for engine in rig.engines:
        engine.fail = explode
        engine.poison = {POISON}
    rig.batcher.start()
    for call in script:
        task = rig.submit(*call.rows, outputs=call.outputs)
        await iterations(3)
        if call.cancel:
            task.cancel()
    results = await asyncio.gather(*rig.tasks, return_exceptions=True)
    await close(rig)
    for call, result in zip(script, results, strict=True):
        _check_result(call, result)
    assert (rig.batcher.queue.sequences, rig.batcher.running_sequences) == (0, 0)


def _check_result(call: Call, result: list[RowOutput] | BaseException) -> None:
    flat = [value for row in call.rows for value in row]
    if isinstance(result, (Overloaded, asyncio.CancelledError)):
        return
    if isinstance(result, BaseException):
        assert isinstance(result, EngineFailure)
        assert POISON in flat or BOMB in flat
        return
    assert BOMB not in flat
    assert len(result) == len(call.rows)
    for row, got in zip(call.rows, result, strict=True):
        expected = {
            Output.SEQUENCE: np.repeat(np.array(row, np.float32)[:, None], 4, axis=1),
            Output.POOLED: np.full(4, row[0], np.float32),
            Output.CLS: np.full(4, row[0], np.float32),
            Output.MEAN: np.full(4, np.mean(row), np.float32),
        }
        for output in ENCODER_OUTPUTS:
            if output in call.outputs:
                np.testing.assert_allclose(got.get(output), expected[output], rtol=1e-6)
            else:
                assert getattr(got, output.value) is None
