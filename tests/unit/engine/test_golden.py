"""A fetched model must compute the same outputs as at its first load."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from electra_serve.engine.golden import LENGTH, check_golden, check_logits, distance, golden_sequence
from electra_serve.errors import PresetError
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.heads import HeadConfig, HeadKind
from electra_serve.presets.hubs.manifest import GOLDEN_FILE, MANIFEST_FILE
from electra_serve.tensors import BatchShape
from tests.fakes import SHORT_SHAPES, FakeEngine, loaded_model


@pytest.fixture
def preset(tmp_path: Path) -> PresetFolder:
    (tmp_path / MANIFEST_FILE).write_text("{}")
    return replace(loaded_model().preset, path=tmp_path, weights="pretrained")


def scale(preset: PresetFolder, factor: float) -> None:
    assert preset.path is not None
    path = preset.path / GOLDEN_FILE
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "mean_output": [value * factor for value in kept["mean_output"]]}))


def test_it_is_noted_first_and_compared_later(preset: PresetFolder) -> None:
    assert preset.path is not None
    check_golden(FakeEngine(SHORT_SHAPES), preset)
    kept = json.loads((preset.path / GOLDEN_FILE).read_text())
    ids = golden_sequence(100, 16).token_ids
    assert kept == {"dtype": "float32", "mean_output": [pytest.approx(float(ids.mean()))] * 4}
    check_golden(FakeEngine(SHORT_SHAPES), preset)


@pytest.mark.parametrize("factor", [0.9901, 1.0099])
def test_another_machines_rounding_is_let_be(preset: PresetFolder, factor: float) -> None:
    check_golden(FakeEngine(SHORT_SHAPES), preset)
    scale(preset, 1 / factor)
    check_golden(FakeEngine(SHORT_SHAPES), preset)


@pytest.mark.parametrize("factor", [0.98, 1.02, -1.0, 0.0, float("nan")])
def test_another_result_is_rejected(preset: PresetFolder, factor: float) -> None:
    check_golden(FakeEngine(SHORT_SHAPES), preset)
    scale(preset, factor)
    with pytest.raises(PresetError, match=f"must be within .* of the output at the first load.*delete {GOLDEN_FILE}"):
        check_golden(FakeEngine(SHORT_SHAPES), preset)


@pytest.mark.parametrize("content", ["{}", '{"dtype": "float32", "mean_output": "x"}', "[]", "{"])
def test_an_invalid_file_is_rejected(preset: PresetFolder, content: str) -> None:
    assert preset.path is not None
    (preset.path / GOLDEN_FILE).write_text(content)
    with pytest.raises(PresetError, match=GOLDEN_FILE):
        check_golden(FakeEngine(SHORT_SHAPES), preset)


def test_only_what_was_fetched_and_trained_is_noted(preset: PresetFolder) -> None:
    assert preset.path is not None
    engine = FakeEngine(SHORT_SHAPES)
    check_golden(engine, replace(preset, weights="random"))
    check_golden(engine, replace(preset, path=None))
    (preset.path / MANIFEST_FILE).unlink()
    check_golden(engine, preset)
    assert engine.batches == []


def test_the_input_fits_the_model() -> None:
    assert len(golden_sequence(10, 4)) == 4
    assert len(golden_sequence(30522, 512)) == LENGTH
    assert golden_sequence(10, 4).token_ids.max() < 10


def test_vectors_of_other_lengths_are_infinitely_far() -> None:
    assert distance(np.ones(3, np.float32), np.ones(4, np.float32)) == float("inf")
    assert distance(np.ones(3, np.float32), np.zeros(3, np.float32)) == float("inf")


def test_it_is_padded_to_a_shape_that_the_engine_takes(preset: PresetFolder) -> None:
    engine = FakeEngine(((1, 32), (1, 64), (4, 32)))
    check_golden(engine, preset)
    assert engine.batches[0].shape == BatchShape(1, 32)
    check_golden(FakeEngine(), preset)


HEAD = HeadConfig("sequence_classification", ("a", "b"), "softmax")


def test_logits_are_noted_and_compared_too(preset: PresetFolder) -> None:
    assert preset.path is not None
    check_golden(FakeEngine(SHORT_SHAPES, HEAD), preset)
    path = preset.path / GOLDEN_FILE
    kept = json.loads(path.read_text())
    assert len(kept["logits"]) == 8 * len(HEAD.labels)
    check_golden(FakeEngine(SHORT_SHAPES, HEAD), preset)
    check_golden(FakeEngine(SHORT_SHAPES), preset)  # the encoder alone
    path.write_text(json.dumps({**kept, "logits": [value * 1.1 for value in kept["logits"]]}))
    with pytest.raises(PresetError, match=r"logits must be within 0.04 .* of the output at the first load; got 0.09"):
        check_golden(FakeEngine(SHORT_SHAPES, HEAD), preset)


def test_logits_are_added_when_the_head_is_first_served(preset: PresetFolder) -> None:
    assert preset.path is not None
    check_golden(FakeEngine(SHORT_SHAPES), preset)
    check_golden(FakeEngine(SHORT_SHAPES, HEAD), preset)
    assert json.loads((preset.path / GOLDEN_FILE).read_text()).keys() == {"dtype", "mean_output", "logits"}


@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification"])
def test_logits_that_overflow_are_rejected(preset: PresetFolder, kind: HeadKind) -> None:
    head = HeadConfig(kind, ("a", "b"), "softmax")
    preset, engine = replace(preset, head=head), FakeEngine(SHORT_SHAPES, head)
    check_logits(engine, preset)
    engine.poison = {int(golden_sequence(100, 16).token_ids[3])}
    message = rf"logits of the {kind} head must be finite in float32; its weights overflow. .*`head: none`"
    with pytest.raises(PresetError, match=message):
        check_logits(engine, preset)
    check_logits(FakeEngine(SHORT_SHAPES), replace(preset, head=None))
