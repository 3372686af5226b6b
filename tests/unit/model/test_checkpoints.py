"""Transformers checkpoints of every style give transformers' hidden states."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from electra_serve.errors import PresetError
from electra_serve.model import ElectraBackbone
from electra_serve.presets.weight_files.names import counterparts
from tests.data.reader import CASES, STYLES, TRANSFORMERS, read_case, read_hidden

TOLERANCE = 1e-5
"""In float32. A checkpoint of 16-bit numbers is computed in float32 on both sides."""


@pytest.fixture(scope="module")
def backbones() -> dict[str, ElectraBackbone]:
    return {style: ElectraBackbone.from_preset(str(TRANSFORMERS / style)) for style in STYLES}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("style", STYLES)
def test_hidden_states_are_transformers(backbones: dict[str, ElectraBackbone], style: str, case: str) -> None:
    inputs, _ = read_case("below", case)
    found = np.asarray(backbones[style](inputs)["sequence_output"])
    counts = inputs["padding_mask"].astype(bool)
    np.testing.assert_allclose(found[counts], read_hidden(style, case)[counts], atol=TOLERANCE, rtol=0)


def test_the_activation_matters(backbones: dict[str, ElectraBackbone]) -> None:
    inputs, _ = read_case("below", "everything")
    exact = ElectraBackbone.from_preset(str(TRANSFORMERS / "tanh"), hidden_activation="gelu")(inputs)
    difference = np.abs(np.asarray(exact[0]) - np.asarray(backbones["tanh"](inputs)[0])).max()
    assert difference > 10 * TOLERANCE


def test_every_weight_of_the_model_is_in_the_table(backbones: dict[str, ElectraBackbone]) -> None:
    for backbone in backbones.values():
        assert backbone.weights_by_path().keys() == counterparts(backbone.config).keys()


def test_a_pooler_that_is_not_there_is_drawn_the_same_each_time(backbones: dict[str, ElectraBackbone]) -> None:
    again = ElectraBackbone.from_preset(str(TRANSFORMERS / "bare"))
    kernel, bias = (np.asarray(weight) for weight in again.pooled_dense.weights)
    assert kernel.std() > 0.01
    assert not bias.any()
    np.testing.assert_array_equal(kernel, np.asarray(backbones["bare"].pooled_dense.kernel))


def test_a_pooler_that_is_there_is_used(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TRANSFORMERS / "bare", tmp_path / "preset"))
    tensors = load_file(folder / "model.safetensors")
    weight, bias = np.random.default_rng(0).standard_normal((17, 16)).astype(np.float32), np.float32(0.5)
    tensors |= {"pooler.dense.weight": weight[:16], "pooler.dense.bias": weight[16] + bias}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    inputs, _ = read_case("below", "everything")
    output = ElectraBackbone.from_preset(str(folder))(inputs)
    cls = np.asarray(output.sequence_output)[:, 0]
    np.testing.assert_allclose(
        output.pooled_output, np.tanh(cls @ weight[:16].T + weight[16] + bias), atol=TOLERANCE, rtol=0
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("style", ["bare", "bfloat16", "float16"])
def test_non_finite_weights_are_rejected(tmp_path: Path, style: str, value: float) -> None:
    folder = Path(shutil.copytree(TRANSFORMERS / style, tmp_path / "preset"))
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.1.output.dense.bias"][3] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PresetError, match=r"preset: encoder.layer.1.output.dense.bias must be finite"):
        ElectraBackbone.from_preset(str(folder))


def test_another_size_than_the_checkpoint_has_is_rejected() -> None:
    with pytest.raises(PresetError, match=r"the checkpoint must have encoder.layer.2.* it is missing"):
        ElectraBackbone.from_preset(str(TRANSFORMERS / "bare"), num_layers=3)
    with pytest.raises(PresetError, match=r"must have shape \(61, 8\); it has \(60, 8\)"):
        ElectraBackbone.from_preset(str(TRANSFORMERS / "bare"), vocab_size=61)
