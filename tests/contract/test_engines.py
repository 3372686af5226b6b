"""One suite over every engine: the numbers, the subsets, the shapes, and what happens after warm-up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations

import numpy as np
import pytest

from service.engine.base import Engine, ShapeGrid
from service.engine.calibration import full_batch
from service.engine.factory import BUILDERS
from service.errors import EngineUnavailable
from service.model.loading import load_backbone
from service.presets.sources import resolve_preset
from service.settings import ModelSettings
from service.tensors import Batch, BatchShape, Float32Array, Output, Outputs

OUTPUT_SETS: list[Outputs] = [
    frozenset(chosen) for chosen in chain.from_iterable(combinations(Output, size) for size in (1, 2, 3, 4))
]
GRID = ShapeGrid(max_rows=8, max_length=512)


def build(name: str, dtype: str = "float32") -> Engine:
    settings = ModelSettings.model_validate({"preset": "electra_demo", "engine": name, "dtype": dtype})
    [engine] = BUILDERS[name]()(resolve_preset("electra_demo"), settings, GRID)
    engine.warm_up([BatchShape(1, 8), BatchShape(4, 32)])
    return engine


@pytest.fixture(scope="module", params=sorted(set(BUILDERS) - {"auto"}))
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    built = build(request.param)
    yield built
    built.close()


def random_batch(rows: int, length: int, seed: int = 0) -> Batch:
    """Rows of different lengths, the first with a hole in its mask, the last in two segments."""
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(0, 4000, (rows, length), dtype=np.int32)
    segment_ids = np.zeros((rows, length), np.int32)
    segment_ids[-1, length // 2 :] = 1
    lengths = rng.integers(1, length + 1, rows)
    padding_mask = (np.arange(length)[None, :] < lengths[:, None]).astype(np.int32)
    padding_mask[0, lengths[0] // 2] = int(lengths[0] < 3)
    return Batch(token_ids, segment_ids, padding_mask)


def reference(batch: Batch) -> dict[Output, Float32Array]:
    """The outputs by way of the Keras model itself, in float32."""
    backbone = load_backbone(resolve_preset("electra_demo"), dtype="float32", load_weights=True, seed=0)
    sequence, pooled = backbone(
        {"token_ids": batch.token_ids, "segment_ids": batch.segment_ids, "padding_mask": batch.padding_mask}
    )
    hidden = np.asarray(sequence)
    mask = batch.padding_mask[:, :, None].astype(np.float32)
    return {
        Output.SEQUENCE: hidden * mask,
        Output.POOLED: np.asarray(pooled),
        Output.CLS: hidden[:, 0],
        Output.MEAN: (hidden * mask).sum(axis=1) / mask.sum(axis=1),
    }


@pytest.mark.parametrize("shape", [(1, 1), (1, 512), (3, 7), (8, 33)])
def test_outputs_equal_the_models_own(engine: Engine, shape: tuple[int, int]) -> None:
    batch = random_batch(*shape)
    output = engine.run(batch, frozenset(Output))
    for name, expected in reference(batch).items():
        got = getattr(output, name.value)
        assert got.dtype == np.float32
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 1e-5, name


@pytest.mark.parametrize("outputs", OUTPUT_SETS, ids=lambda outputs: "+".join(sorted(outputs)))
def test_only_what_is_asked_for_is_answered(engine: Engine, outputs: Outputs) -> None:
    batch = random_batch(4, 16)
    everything = engine.run(batch, frozenset(Output))
    some = engine.run(batch, outputs)
    for name in Output:
        got, expected = getattr(some, name.value), getattr(everything, name.value)
        if name in outputs:
            assert np.abs(got - expected).max() <= 1e-5
        else:
            assert got is None


def test_a_row_does_not_depend_on_its_batch(engine: Engine) -> None:
    together = random_batch(8, 64, seed=3)
    whole = engine.run(together, frozenset(Output))
    for row in range(8):
        n = int(np.flatnonzero(together.padding_mask[row])[-1]) + 1
        alone = Batch(
            together.token_ids[row : row + 1, :n],
            together.segment_ids[row : row + 1, :n],
            together.padding_mask[row : row + 1, :n],
        )
        single = engine.run(alone, frozenset(Output))
        for name in Output:
            expected = getattr(whole, name.value)[row]
            got = getattr(single, name.value)[0]
            assert np.abs(got - (expected[:n] if name is Output.SEQUENCE else expected)).max() <= 1e-5


def test_masked_positions_are_zeros_and_change_nothing(engine: Engine) -> None:
    batch = random_batch(4, 32, seed=5)
    output = engine.run(batch, frozenset({Output.SEQUENCE}))
    assert output.sequence_output is not None
    assert (output.sequence_output[batch.padding_mask == 0] == 0).all()
    scrambled = np.where(batch.padding_mask == 1, batch.token_ids, 3999 - batch.token_ids)
    other = engine.run(Batch(scrambled, batch.segment_ids, batch.padding_mask), frozenset({Output.MEAN}))
    same = engine.run(batch, frozenset({Output.MEAN}))
    attended_first = batch.padding_mask[:, 0] == 1
    assert other.mean_output is not None
    assert same.mean_output is not None
    assert np.abs(other.mean_output - same.mean_output)[attended_first].max() <= 1e-5


def test_nothing_is_compiled_after_warm_up(engine: Engine) -> None:
    for rows, length in [(1, 1), (2, 3), (5, 77), (8, 512), (7, 100)]:
        for outputs in OUTPUT_SETS:
            engine.run(full_batch(BatchShape(rows, min(length, 64))), outputs)
    assert engine.compilations == 0


def test_signature(engine: Engine) -> None:
    signature = engine.signature
    assert (signature.device, signature.dtype, signature.hidden_dim) == ("cpu", "float32", 128)
    assert signature.grid.max_length == 512


@pytest.mark.parametrize("name", sorted(set(BUILDERS) - {"auto"}))
def test_sixteen_bits_are_close_and_answer_in_float32(name: str) -> None:
    engine = build(name, "bfloat16")
    batch = random_batch(4, 32)
    output = engine.run(batch, frozenset(Output))
    assert engine.signature.dtype == "bfloat16"
    expected = reference(batch)
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


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    settings = ModelSettings.model_validate({"preset": "electra_demo", "engine": name, "device": "gpu:99"})
    with pytest.raises(EngineUnavailable, match="received gpu:99"):
        BUILDERS[name]()(resolve_preset("electra_demo"), settings, GRID)
