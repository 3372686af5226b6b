"""Windows on engines: outputs keep their places, and one bad sequence spoils no other."""

from __future__ import annotations

import numpy as np
import pytest

from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.planner import Planner
from electra_serve.bulk.engines import Computed, EnginePool, groups
from electra_serve.errors import BulkError
from electra_serve.tensors import Batch, Encoding, Output
from tests.fakes import FAKE_HIDDEN_DIM, FakeEngine, encoding, fake_timings

WIDTHS = dict.fromkeys((Output.MEAN, Output.CLS, Output.SEQUENCE), FAKE_HIDDEN_DIM)


def pool(*engines: FakeEngine) -> EnginePool:
    return EnginePool(engines, Planner(CostTable(fake_timings(engines[0])), max_positions=512), WIDTHS, vocab_size=100)


def sequences(count: int) -> list[Encoding]:
    return [encoding(*range(1, 2 + index * 13 % 60), masked_tail=index % 3) for index in range(count)]


def compute(window: list[Encoding], *engines: FakeEngine) -> Computed:
    pooled = pool(*engines)
    try:
        computed = pooled.submit(window)
        assert computed.wait()
    finally:
        pooled.close()
    return computed


def expected(one: Encoding) -> list[float]:
    """Mean and first id, and the ids of all positions."""
    ids = one.token_ids * one.padding_mask
    return [float(ids.sum() / one.real_tokens), float(one.token_ids[0]), *map(float, ids)]


def found(computed: Computed, index: int) -> list[float]:
    states = computed.positions[Output.SEQUENCE][index]
    assert states is not None
    vectors = [computed.vectors[output][index] for output in (Output.MEAN, Output.CLS)]
    return [float(vector[0]) for vector in (*vectors, *states)]


@pytest.mark.parametrize("count", [0, 1, 7, 300, 2100])
def test_outputs_keep_their_places(count: int) -> None:
    window = sequences(count)
    computed = compute(window, FakeEngine(), FakeEngine())
    assert not computed.failed
    assert computed.tokens == sum(one.real_tokens for one in window)
    for index, one in enumerate(window):
        assert found(computed, index) == pytest.approx(expected(one), rel=1e-6)


def test_the_same_window_is_cut_into_the_same_batches() -> None:
    one, other = FakeEngine(), FakeEngine()
    compute(sequences(500), one)
    compute(sequences(500), other)
    assert [batch.placements for batch in one.batches] == [batch.placements for batch in other.batches]
    assert len(one.batches) < 500


def test_sequences_without_finite_outputs_fail_alone() -> None:
    window = sequences(40)
    window[7] = encoding(99, 98)
    engine = FakeEngine()
    engine.poison = {99}
    computed = compute(window, engine)
    assert computed.failed == {7: "the model's output must be finite; got other numbers"}
    for index in set(range(40)) - {7}:
        assert found(computed, index) == pytest.approx(expected(window[index]), rel=1e-6)


@pytest.mark.parametrize("error", [RuntimeError("bad"), MemoryError("full")])
def test_a_sequence_at_fault_is_found_by_halving(error: Exception) -> None:
    window = sequences(40)
    window[7], window[30] = encoding(99), encoding(98)

    def fail(batch: Batch) -> None:
        if np.isin(batch.token_ids, [98, 99]).any():
            raise error

    engine = FakeEngine()
    engine.fail = fail
    computed = compute(window, engine)
    assert computed.failed == dict.fromkeys((7, 30), "the engine failed on this row")
    for index in set(range(40)) - {7, 30}:
        assert found(computed, index) == pytest.approx(expected(window[index]), rel=1e-6)


def test_memory_for_few_sequences_suffices() -> None:
    def fail(batch: Batch) -> None:
        if len(batch.placements) > 2:
            raise MemoryError("full")

    engine = FakeEngine()
    engine.fail = fail
    window = sequences(40)
    computed = compute(window, engine)
    assert not computed.failed
    assert all(found(computed, index) == pytest.approx(expected(one), rel=1e-6) for index, one in enumerate(window))


def test_an_engine_that_fails_on_everything_ends_the_run() -> None:
    def fail(_: Batch) -> None:
        raise RuntimeError("the device\nis lost")

    engine = FakeEngine()
    engine.fail = fail
    pooled = pool(engine)
    with pytest.raises(BulkError, match=r"^the engine failed: RuntimeError: the device is lost$"):
        pooled.submit(sequences(3)).wait()
    pooled.close()


def test_closing_drops_queued_batches() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    pooled = pool(engine)
    computed = pooled.submit(sequences(2000))
    assert not computed.wait(0)
    pooled._closing.set()
    engine.gate.set()
    pooled.close()
    assert len(engine.batches) <= 1


def test_groups_have_like_mixtures() -> None:
    lengths = [index % 100 + 1 for index in range(5000)]
    dealt = groups(lengths, 1024)
    assert sorted(index for group in dealt for index in group) == list(range(5000))
    assert [len(group) for group in dealt] == [1000] * 5
    sums = [sum(lengths[index] for index in group) for group in dealt]
    assert max(sums) - min(sums) < 1100
    assert groups([], 10) == []
