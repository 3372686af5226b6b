"""One suite over every engine: numbers, subsets of outputs, shapes, rejections, and compilations after warm-up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest

from electra_serve.engine.base import Engine, EngineSet
from electra_serve.engine.factory import BUILDERS
from electra_serve.engine.profiling import full_batch
from electra_serve.engine.shapes import single_rows
from electra_serve.errors import EngineUnavailable
from electra_serve.tensors import (
    ENCODER_OUTPUTS,
    Batch,
    BatchShape,
    Float32Array,
    Int32Array,
    Output,
    Outputs,
    RowOutput,
)
from tests.contract.engines import (
    ALL,
    ENGINES,
    LARGEST,
    LENGTHS,
    LIMITS,
    OF_KERAS,
    ON_GPU,
    ON_JAX,
    OTHERS,
    SHAPES,
    SINGLE,
    VOCAB_SIZE,
    Packed,
    build,
    build_one,
    computes_in,
    random_packed,
    random_sequence,
    reference,
    run,
    short_of_memory,
)

OUTPUT_SETS: list[Outputs] = [
    frozenset(chosen)
    for chosen in chain.from_iterable(combinations(sorted(ENCODER_OUTPUTS), size) for size in (1, 2, 3, 4))
]
CLS_ALONE: Outputs = frozenset({Output.CLS})
FLOAT32 = 1e-5
"""Largest difference of one number, in float32."""


@pytest.fixture(scope="module", params=ENGINES)
def engines(request: pytest.FixtureRequest) -> Iterator[EngineSet]:
    built = build(request.param)
    for engine in built.all():
        engine.warm_up()
    yield built
    for engine in built.all():
        engine.close()


@pytest.fixture
def engine(engines: EngineSet) -> Engine:
    return engines.engines[0]


def assert_close(found: RowOutput, expected: RowOutput, outputs: Outputs = ALL) -> None:
    for name in outputs:
        assert np.abs(found.get(name) - expected.get(name)).max() <= FLOAT32, name


def assert_as_alone(engine: Engine, packed: Packed, outputs: Outputs = ALL) -> None:
    """Fails unless each sequence has the outputs that the model gives it alone."""
    for found, encoding in zip(run(engine, packed, outputs), packed.encodings, strict=True):
        expected = reference(encoding)
        for name in outputs:
            assert found.get(name).shape == expected[name].shape
            assert np.abs(found.get(name) - expected[name]).max() <= FLOAT32, name


@pytest.mark.parametrize("seed", [0, 1])
def test_outputs_equal_the_models_own(engines: EngineSet, seed: int) -> None:
    for engine in engines.all():
        for shape in engine.signature.shapes:
            assert_as_alone(engine, random_packed(shape, seed))


def test_the_longest_sequence_fills_a_row(engine: Engine) -> None:
    longest = random_sequence(LARGEST.length, np.random.default_rng(2))
    assert_as_alone(engine, Packed.of([longest, longest], [(0, 0), (1, 0)], LARGEST))


@pytest.mark.parametrize("outputs", OUTPUT_SETS, ids=lambda outputs: "+".join(sorted(outputs)))
def test_only_the_outputs_requested_are_returned(engine: Engine, outputs: Outputs) -> None:
    assert_as_alone(engine, random_packed(LARGEST), outputs)


def test_a_sequence_does_not_depend_on_its_place_or_its_neighbors(engine: Engine) -> None:
    rng = np.random.default_rng(3)
    one, *others = (random_sequence(length, rng) for length in (11, 6, 3, 3, 1))
    [alone] = run(engine, Packed.of([one], [(0, 0)], SINGLE))
    packings = (
        ([one, others[0], others[1]], [(0, 0), (0, 11), (0, 17)]),
        ([others[0], others[1], one], [(0, 0), (0, 6), (0, 9)]),
        ([others[3], one, others[2]], [(1, 1), (1, 5), (1, 16)]),
        ([others[0], others[1], one], [(0, 0), (1, 0), (1, 3)]),
        ([one, one], [(0, 2), (1, 9)]),
    )
    for encodings, starts in packings:
        packed = Packed.of(encodings, starts, LARGEST)
        for outputs in (ALL, frozenset({Output.CLS, Output.POOLED})):
            found = run(engine, packed, outputs)
            assert_close(found[encodings.index(one)], alone, outputs)


def test_masked_positions_are_zeros_and_change_nothing(engine: Engine) -> None:
    packed = random_packed(LARGEST, seed=5)
    masked = packed.batch.padding_mask == 0
    assert masked[:, 0].any()
    output = engine.run(packed.batch, ALL).sequence_output
    assert output is not None
    assert (output[masked] == 0).all()
    # The first position of a sequence is computed even if it is masked: its own id counts there.
    free = masked & (packed.batch.position_ids > 0) | (packed.batch.sequence_ids == 0)
    changes = {
        "token_ids": VOCAB_SIZE - 1 - packed.batch.token_ids,
        "segment_ids": 1 - packed.batch.segment_ids,
        "position_ids": 19 - packed.batch.position_ids,
    }
    scrambled: dict[str, Any] = {
        name: np.where(free, values, getattr(packed.batch, name)) for name, values in changes.items()
    }
    changed = run(engine, replace(packed, batch=replace(packed.batch, **scrambled)))
    for ours, expected in zip(changed, run(engine, packed), strict=True):
        assert_close(ours, expected)


def test_an_empty_row_and_an_empty_batch_are_zeros(engine: Engine) -> None:
    sequence = random_sequence(LENGTHS[-1], np.random.default_rng(6))
    assert_as_alone(engine, Packed.of([sequence], [(1, 3)], LARGEST))
    for outputs in (ALL, frozenset({Output.CLS})):
        output = engine.run(Batch.pack([], [], LARGEST), outputs)
        assert output.cls_output is not None
        assert np.isfinite(output.cls_output).all()
    whole = engine.run(Batch.pack([], [], LARGEST), ALL).sequence_output
    assert whole is not None
    assert not whole.any()


def test_an_output_is_not_changed_by_the_next_run(engine: Engine) -> None:
    response = engine.run(random_packed(LARGEST).batch, ALL)
    kept = {name: np.copy(getattr(response, name.value)) for name in ENCODER_OUTPUTS}
    engine.run(random_packed(LARGEST, seed=1).batch, ALL)
    for name in ENCODER_OUTPUTS:
        np.testing.assert_array_equal(getattr(response, name.value), kept[name])


def test_it_runs_on_another_thread_than_it_was_made_on(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(assert_as_alone, engine, random_packed(SINGLE)).result()


def test_nothing_is_compiled_after_warm_up(engines: EngineSet) -> None:
    sequence = random_sequence(1, np.random.default_rng(7))
    for engine in engines.all():
        for shape in engine.signature.shapes:
            for sequences in range(shape.slots + 1):
                packed = Packed.of([sequence] * sequences, [(0, start) for start in range(sequences)], shape)
                for outputs in (frozenset({Output.MEAN}), frozenset({Output.CLS})):
                    run(engine, packed, outputs)
        for outputs in OUTPUT_SETS:
            engine.run(full_batch(SINGLE), outputs)
        assert engine.compilations == 0


def test_signature(engines: EngineSet) -> None:
    for engine in engines.all():
        signature = engine.signature
        device = "gpu:0" if ON_GPU else "cpu"
        assert (signature.device, signature.dtype, signature.hidden_dim) == (device, "float32", 192)
        shapes = SHAPES(LIMITS)
        assert {SINGLE, LARGEST} <= set(shapes)
        assert signature.shapes == (single_rows(shapes) if engine is engines.lone else shapes)


def changed(batch: Batch, field: str, values: Int32Array) -> Batch:
    fields: dict[str, Any] = {field: values}
    return replace(batch, **fields)


@pytest.mark.parametrize(
    ("field", "bound"),
    [
        ("token_ids", 8000),
        ("segment_ids", 2),
        ("position_ids", 512),
        ("sequence_ids", LARGEST.slots + 1),
        ("padding_mask", 2),
        ("starts", LARGEST.length),
    ],
)
def test_a_value_out_of_range_is_rejected_and_the_next_batch_runs(engine: Engine, field: str, bound: int) -> None:
    good = full_batch(LARGEST)
    for value in (bound, -1):
        values = np.copy(getattr(good, field))
        values[1, 3] = value
        with pytest.raises(ValueError, match=rf"{field} must be 0 to {bound - 1}; got .*{value}"):
            engine.run(changed(good, field, values), ALL)
    assert engine.run(good, ALL).mean_output is not None


@pytest.mark.parametrize("shape", [(3, 16), (1, 8), (1, 21), (2, 16), (0, 16), (1, 0)])
def test_another_shape_is_rejected(engine: Engine, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="one of the engine's shapes; got BatchShape"):
        engine.run(Batch.pack([], [], BatchShape(*shape)), ALL)
    assert engine.compilations == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ENGINES)
def test_sixteen_bits_are_close_or_rejected(name: str, dtype: str) -> None:
    if not computes_in(name, dtype):
        with pytest.raises(EngineUnavailable, match=dtype):
            build(name, dtype=dtype)
        return
    engine = build_one(name, dtype=dtype)
    packed = random_packed(SINGLE)
    assert engine.signature.dtype == dtype
    alone = run(engine, packed, CLS_ALONE)
    for found, first, encoding in zip(run(engine, packed), alone, packed.encodings, strict=True):
        expected = reference(encoding)
        kept = encoding.padding_mask == 1
        assert _cosines(found.get(Output.SEQUENCE)[kept], expected[Output.SEQUENCE][kept]).min() >= 0.9995
        assert _cosines(found.get(Output.MEAN)[None], expected[Output.MEAN][None]).min() >= 0.9995
        assert _cosines(found.get(Output.CLS)[None], expected[Output.CLS][None]).min() >= 0.9995
        assert _cosines(first.get(Output.CLS)[None], expected[Output.CLS][None]).min() >= 0.9995
    engine.close()


def _cosines(a: Float32Array, b: Float32Array) -> Float32Array:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / norms, np.float32)


def test_two_live_side_by_side_and_closing_one_leaves_the_other(engine: Engine, request: pytest.FixtureRequest) -> None:
    one, other = build_one(request.node.callspec.params["engines"]), engine
    first, second = random_packed(SINGLE), random_packed(LARGEST)
    for _ in range(2):
        assert_as_alone(one, first)
        assert_as_alone(other, second)
    one.close()
    one.close()
    with pytest.raises(RuntimeError):
        one.run(first.batch, ALL)
    assert_as_alone(other, second)


@pytest.mark.parametrize("name", ENGINES)
def test_a_missing_device_is_rejected(name: str) -> None:
    with pytest.raises(EngineUnavailable, match="got gpu:99"):
        build(name, device="gpu:99")


@pytest.mark.parametrize("backend", OF_KERAS)
def test_keras_on_another_backend_is_rejected(backend: str) -> None:
    if backend == ("jax" if ON_JAX else "tensorflow"):
        BUILDERS[backend]()
        return
    installed = find_spec(backend) is not None
    message = f"Keras must run on {backend} for this engine; it runs on " if installed else f"needs {backend} installed"
    with pytest.raises(EngineUnavailable, match=message):
        BUILDERS[backend]()


@pytest.mark.skipif(ON_JAX, reason="needs Keras on TensorFlow")
def test_tensorflow_keeps_all_bits_of_float32_factors() -> None:
    import tensorflow as tf

    build("tensorflow graph")
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize("engines", sorted(set(ENGINES) - set(OTHERS)), indirect=True)
def test_short_memory_is_reported_as_such(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = engine._programs  # type: ignore[attr-defined]

    def fail(*_: object) -> None:
        raise short_of_memory()

    monkeypatch.setattr(engine, "_programs", dict.fromkeys(programs, fail))
    with pytest.raises(MemoryError):
        engine.run(full_batch(SINGLE), ALL)
