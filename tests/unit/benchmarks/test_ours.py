"""Our engines without a service, on fakes: what they pack and compute is what the service would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.encoders.ours import OurEngines
from benchmarks.encoders.questions import CountPositions, Encode, Time
from benchmarks.orders import in_arrival_order, real_tokens
from benchmarks.workload import encodings, natural_lengths
from electra_serve.settings.schema import BatchingSettings
from electra_serve.tensors import Output
from tests.fakes import FakeEngine, loaded_model

MEAN = frozenset({Output.MEAN})


def test_each_sequence_gets_its_own_output() -> None:
    sequences = encodings(natural_lengths(50))
    answers = Encode(sequences, MEAN).answer(OurEngines(loaded_model(FakeEngine(), FakeEngine()), BatchingSettings()))
    means = [answer.get(Output.MEAN)[0] for answer in answers]
    np.testing.assert_allclose(means, [sequence.token_ids.mean() for sequence in sequences], rtol=1e-6)


def test_windows_are_packed() -> None:
    ours = OurEngines(loaded_model(FakeEngine()), BatchingSettings())
    windows = in_arrival_order(encodings(natural_lengths(128)), 64)
    assert CountPositions(windows).answer(ours) < 1.3 * real_tokens(windows)


def test_batches_run_on_all_engines_at_once() -> None:
    first, second = FakeEngine(), FakeEngine()
    first.gate.clear()
    second.fail = lambda _: first.gate.set()  # the first ends only once the second runs
    ours = OurEngines(loaded_model(first, second), BatchingSettings())
    batches = [packed.batch for packed in ours.pack(encodings([512, 500]))]
    assert len(ours.run(batches, MEAN)) == 2
    assert [len(engine.batches) for engine in (first, second)] == [1, 1]


def test_a_lone_sequence_runs_on_the_engine_for_lone_requests() -> None:
    loaded = loaded_model(FakeEngine(), FakeEngine())
    lone = FakeEngine()
    Time([encodings([64])], MEAN).answer(OurEngines(replace(loaded, lone=lone), BatchingSettings()))
    assert len(lone.batches) == 2
