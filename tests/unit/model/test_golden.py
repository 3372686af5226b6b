"""The same numbers as KerasHub, from the same files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from electra_serve.model import ElectraBackbone
from tests.data.reader import CASES, GOLDEN, OUTPUTS, PRESETS, read_case

TOLERANCE = 1e-5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("preset", [*PRESETS, "sharded"])
def test_outputs_are_kerashubs(golden_backbones: dict[str, ElectraBackbone], preset: str, case: str) -> None:
    inputs, expected = read_case("below" if preset == "sharded" else preset, case)
    outputs = golden_backbones[preset](inputs)
    for name in OUTPUTS:
        assert np.abs(np.asarray(outputs[name]) - expected[name]).max() <= TOLERANCE


@pytest.mark.parametrize("preset", PRESETS)
def test_golden_outputs_are_far_from_trivial(preset: str) -> None:
    _, padded = read_case(preset, "trailing_padding")
    _, holed = read_case(preset, "hole_in_mask")
    assert padded["sequence_output"].std() > 0.1
    assert holed["pooled_output"].std() > 0.1


@pytest.mark.parametrize(
    ("preset", "dense_layers"), [("below", {"dense", "dense_1"}), ("equal", {"dense"}), ("above", {"dense", "dense_1"})]
)
def test_a_saved_file_is_laid_out_as_kerashubs(
    golden_backbones: dict[str, ElectraBackbone], tmp_path: Path, preset: str, dense_layers: set[str]
) -> None:
    golden_backbones[preset].save_to_preset(tmp_path)
    ours, theirs = _layout(tmp_path / "model.weights.h5"), _layout(GOLDEN / preset / "model.weights.h5")
    assert ours == theirs
    assert {path.split("/")[1] for path in theirs if path.startswith("layers/dense")} == dense_layers


def test_a_saved_preset_loads_with_equal_outputs(golden_backbones: dict[str, ElectraBackbone], tmp_path: Path) -> None:
    golden_backbones["above"].save_to_preset(tmp_path)
    inputs, _ = read_case("above", "everything")
    saved, loaded = golden_backbones["above"](inputs), ElectraBackbone.from_preset(str(tmp_path))(inputs)
    for name in OUTPUTS:
        np.testing.assert_array_equal(saved[name], loaded[name])


def test_config_json_is_kerashubs(tmp_path: Path) -> None:
    ElectraBackbone.from_preset(str(GOLDEN / "below"), name="electra_backbone").save_to_preset(tmp_path)
    ours, theirs = ((folder / "config.json").read_text().strip() for folder in (tmp_path, GOLDEN / "below"))
    assert ours == theirs


def test_another_activation_is_kept_and_not_called_kerashubs(tmp_path: Path) -> None:
    inputs, _ = read_case("below", "everything")
    exact = ElectraBackbone.from_preset(str(GOLDEN / "below"), hidden_activation="gelu")
    exact.save_to_preset(tmp_path)
    loaded = ElectraBackbone.from_preset(str(tmp_path))
    assert '"registered_name": "electra_serve>ElectraBackbone"' in (tmp_path / "config.json").read_text()
    np.testing.assert_array_equal(loaded(inputs).pooled_output, exact(inputs).pooled_output)


def _layout(file: Path) -> dict[str, tuple[int, ...] | None]:
    """Every group (None) and dataset (its shape) by path."""
    layout: dict[str, tuple[int, ...] | None] = {}
    with h5py.File(file) as opened:
        opened.visititems(lambda path, node: layout.update({path: getattr(node, "shape", None)}))
    return layout
