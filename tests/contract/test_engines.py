"""One suite over every engine: the numbers, the subsets, the shapes, the refusals, and what happens after warm-up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest

from electra_serve.engine.base import Engine
from electra_serve.engine.factory import BUILDERS
from electra_serve.engine.profiling import full_batch
from electra_serve.errors import EngineUnavailable
from electra_serve.tensors import Batch, BatchShape, Float32Array, Output, Outputs
from tests.contract.engines import (
    ALL,
    ENGINES,
    GRID,
    OF_KERAS,
    ON_JAX,
    OTHERS,
    build,
    build_for,
    computes_in,
    random_batch,
    reference,
    run,
    short_of_memory,
)

OUTPUT_SETS: list[Outputs] = [
    frozenset(chosen) for chosen in chain.from_iterable(combinations(Output, size) for size in (1, 2, 3, 4))
]
FLOAT32 = 1e-5
"""Largest difference of one number, in float32."""


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    built = build(request.param)
    built.warm_up([BatchShape(1, 8), BatchShape(3, 8)])
    yield built
    built.close()


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (3, 7), (3, 8)])
def test_outputs_equal_the_models_own(engine: Engine, shape: tuple[int, int]) -> None:
    output = run(engine, random_batch(*shape))
    for name, expected in reference(*shape).items():
        got = getattr(output, name.value)
        assert got.dtype == np.float32
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= FLOAT32, name


@pytest.mark.parametrize("outputs", OUTPUT_SETS, ids=lambda outputs: "+".join(sorted(outputs)))
def test_only_what_is_asked_for_is_answered(engine: Engine, outputs: Outputs) -> None:
    everything = reference(3, 8)
    some = run(engine, random_batch(3, 8), outputs)
    for name in outputs:
        assert np.abs(getattr(some, name.value) - everything[name]).max() <= FLOAT32


def test_a_row_does_not_depend_on_its_batch(engine: Engine) -> None:
    together = random_batch(3, 8, seed=3)
    whole = run(engine, together)
    for row in range(3):
        n = int(np.flatnonzero(together.padding_mask[row])[-1]) + 1
        alone = Batch(
            together.token_ids[row : row + 1, :n],
            together.segment_ids[row : row + 1, :n],
            together.padding_mask[row : row + 1, :n],
        )
        single = run(engine, alone)
        for name in Output:
            expected = getattr(whole, name.value)[row]
            got = getattr(single, name.value)[0]
            assert np.abs(got - (expected[:n] if name is Output.SEQUENCE else expected)).max() <= FLOAT32


def test_masked_positions_are_zeros_and_change_nothing(engine: Engine) -> None:
    batch = random_batch(3, 8, seed=5)
    assert batch.padding_mask[:, 0].all()
    output = run(engine, batch)
    assert output.sequence_output is not None
    assert (output.sequence_output[batch.padding_mask == 0] == 0).all()
    scrambled = np.where(batch.padding_mask == 1, batch.token_ids, 3999 - batch.token_ids)
    other = run(engine, replace(batch, token_ids=scrambled))
    for name in Output:
        assert np.abs(getattr(other, name.value) - getattr(output, name.value)).max() <= FLOAT32


def test_an_answer_is_not_changed_by_the_next_run(engine: Engine) -> None:
    answer = run(engine, random_batch(2, 8))
    kept = {name: np.copy(getattr(answer, name.value)) for name in Output}
    run(engine, random_batch(2, 8, seed=1))
    for name in Output:
        np.testing.assert_array_equal(getattr(answer, name.value), kept[name])


def test_it_runs_on_another_thread_than_it_was_made_on(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as thread:
        output = thread.submit(run, engine, random_batch(3, 7)).result()
    assert output.mean_output is not None
    assert np.abs(output.mean_output - reference(3, 7)[Output.MEAN]).max() <= FLOAT32


def test_nothing_is_compiled_after_warm_up(engine: Engine) -> None:
    for rows, length in [(1, 1), (2, 3), (1, 20), (1, 19), (3, 8), (3, 5)]:
        shape = engine.signature.grid.fit(rows, length)
        for outputs in OUTPUT_SETS:
            engine.run(full_batch(shape), outputs)
    assert engine.compilations == 0


def test_signature(engine: Engine) -> None:
    signature = engine.signature
    assert (signature.device, signature.dtype, signature.hidden_dim) == ("cpu", "float32", 128)
    grid = signature.grid
    assert (grid.max_rows, grid.max_length, grid.max_tokens) == (GRID.max_rows, GRID.max_length, GRID.max_tokens)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("token_ids", 4000, "token_ids must be 0 to 3999; received .* to 4000"),
        ("token_ids", -1, "token_ids must be 0 to 3999; received -1 to "),
        ("segment_ids", 2, "segment_ids must be 0 to 1; received 0 to 2"),
        ("padding_mask", 2, "padding_mask must be 0 to 1; received 1 to 2"),
    ],
)
def test_what_is_out_of_range_is_refused_and_the_next_batch_runs(
    engine: Engine, field: str, value: int, message: str
) -> None:
    good = full_batch(engine.signature.grid.fit(2, 8))
    values = np.copy(getattr(good, field))
    values[1, 3] = value
    with pytest.raises(ValueError, match=message):
        engine.run(replace(good, **{field: values}), ALL)
    assert engine.run(good, ALL).mean_output is not None


@pytest.mark.parametrize("shape", [(4, 8), (1, 21), (3, 20), (0, 8), (1, 0)])
def test_a_shape_outside_the_grid_is_refused(engine: Engine, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="shape of the engine's grid; received BatchShape"):
        engine.run(full_batch(BatchShape(*shape)), ALL)
    assert engine.compilations == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ENGINES)
def test_sixteen_bits_are_close_or_refused(name: str, dtype: str) -> None:
    if not computes_in(name, dtype):
        with pytest.raises(EngineUnavailable, match=f"received {dtype}"):
            build_for(name, 3, 8, dtype=dtype)
        return
    engine = build_for(name, 3, 8, dtype=dtype)
    batch = random_batch(3, 8)
    output = run(engine, batch)
    assert engine.signature.dtype == dtype
    expected = reference(3, 8)
    attended = batch.padding_mask == 1
    assert output.sequence_output is not None
    assert output.sequence_output.dtype == np.float32
    assert _cosines(output.sequence_output[attended], expected[Output.SEQUENCE][attended]).min() >= 0.9995
    assert output.mean_output is not None
    assert _cosines(output.mean_output, expected[Output.MEAN]).min() >= 0.9995
    engine.close()


def _cosines(a: Float32Array, b: Float32Array) -> Float32Array:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / norms, np.float32)


def test_two_live_side_by_side_and_closing_one_leaves_the_other(engine: Engine, request: pytest.FixtureRequest) -> None:
    one, other = build_for(request.node.callspec.params["engine"], 3, 8), engine
    first, second = random_batch(3, 8), random_batch(1, 20)
    for _ in range(2):
        _assert_mean(one, first, (3, 8))
        _assert_mean(other, second, (1, 20))
    one.close()
    one.close()
    with pytest.raises(RuntimeError):
        one.run(first, ALL)
    _assert_mean(other, second, (1, 20))


def _assert_mean(engine: Engine, batch: Batch, shape: tuple[int, int]) -> None:
    mean = engine.run(batch, frozenset({Output.MEAN})).mean_output
    assert mean is not None
    assert np.abs(mean - reference(*shape)[Output.MEAN]).max() <= FLOAT32


@pytest.mark.parametrize("name", ENGINES)
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(EngineUnavailable, match="received gpu:99"):
        build(name, device="gpu:99")


@pytest.mark.parametrize("backend", OF_KERAS)
def test_keras_on_another_backend_is_refused(backend: str) -> None:
    if backend == ("jax" if ON_JAX else "tensorflow"):
        BUILDERS[backend]()
        return
    with pytest.raises(EngineUnavailable, match=f"Keras must run on {backend} for this engine; it runs on "):
        BUILDERS[backend]()


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - set(OTHERS)), indirect=True)
def test_short_memory_is_told_as_such(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = engine._programs  # type: ignore[attr-defined]

    def fail(*_: object) -> None:
        raise short_of_memory()

    monkeypatch.setattr(engine, "_programs", dict.fromkeys(programs, fail))
    with pytest.raises(MemoryError):
        engine.run(random_batch(3, 8), ALL)
