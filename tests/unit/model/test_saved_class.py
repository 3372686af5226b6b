"""Saved presets and models load by their registered name; the module is ignored."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import pytest

from electra_serve.engine.factory import load_model
from electra_serve.model import Backbone, ElectraBackbone
from electra_serve.model.attention import HeadsDense, SelfAttention
from electra_serve.model.layers import PositionEmbedding, TransformerEncoder
from electra_serve.model.loading import load_backbone
from electra_serve.presets.sources import resolve_preset
from electra_serve.settings.schema import BatchingSettings, ModelSettings
from electra_serve.tensors import Batch, Encoding, Output
from tests.data.reader import GOLDEN, INPUTS, read_case

MOVED_FROM: Final = "service.model."
"""The package of the model's modules in version 0.1.0, which no longer exists."""
MOVED_TO: Final = "electra_serve.model."

SAVED_CLASSES: Final[Mapping[str, Mapping[str, str]]] = {
    "0.1.0": {"module": f"{MOVED_FROM}backbone", "registered_name": "electra_serve>ElectraBackbone"},
    "today": {"module": f"{MOVED_TO}backbone", "registered_name": "electra_serve>ElectraBackbone"},
    "compiled without files": {"registered_name": "electra_serve>ElectraBackbone"},
    "KerasHub": {
        "module": "keras_hub.src.models.electra.electra_backbone",
        "registered_name": "keras_hub>ElectraBackbone",
    },
    "KerasNLP": {
        "module": "keras_nlp.src.models.electra.electra_backbone",
        "registered_name": "keras_nlp>ElectraBackbone",
    },
}

LAYERS: Final[Mapping[str, Callable[[], keras.layers.Layer]]] = {
    "electra_serve>HeadsDense": partial(HeadsDense, (8, 2, 4), (2, 4)),
    "electra_serve>SelfAttention": partial(SelfAttention, 8, 2),
    "electra_serve>PositionEmbedding": partial(PositionEmbedding, 4),
    "electra_serve>TransformerEncoder": partial(TransformerEncoder, 8, 2, 16),
}


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """Outputs of the model in every folder below."""
    inputs, _ = read_case("below", "everything")
    outputs = ElectraBackbone.from_preset(str(GOLDEN / "below"), hidden_activation="gelu")(inputs)
    return {name: np.asarray(outputs[name]) for name in ("sequence_output", "pooled_output")}


@pytest.fixture(params=SAVED_CLASSES.values(), ids=list(SAVED_CLASSES))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A preset whose config has the class name of an older version."""
    folder = Path(shutil.copytree(GOLDEN / "below", tmp_path / "saved"))
    saved = json.loads((folder / "config.json").read_text())
    config = {**saved["config"], "hidden_activation": "gelu"}
    content = {"class_name": saved["class_name"], "config": config, **request.param}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("class_", [ElectraBackbone, Backbone])
def test_from_preset_loads_it(class_: type[Backbone], folder: Path, expected: dict[str, Any]) -> None:
    inputs, _ = read_case("below", "everything")
    assert_equal(class_.from_preset(str(folder))(inputs), expected)


def test_a_keras_engine_loads_it(folder: Path, expected: dict[str, Any]) -> None:
    inputs, _ = read_case("below", "everything")
    assert_equal(load_backbone(resolve_preset(str(folder)), dtype="float32", load_weights=True)(inputs), expected)


def test_the_openvino_engine_serves_it(folder: Path, expected: dict[str, Any]) -> None:
    inputs, _ = read_case("below", "everything")
    settings = ModelSettings(preset=str(folder), engine="openvino", dtype="float32")
    engine = load_model(settings, BatchingSettings(max_batch_tokens=1)).engines[0]
    outputs = frozenset({Output.SEQUENCE, Output.POOLED})
    for row, (ids, segments, mask) in enumerate(zip(*(inputs[name].astype(np.int32) for name in INPUTS), strict=True)):
        sequence = Encoding(ids, segments, mask, compute_length=len(mask), real_tokens=int(mask.sum()))
        batch = Batch.one_per_row([sequence], engine.signature.single_row(len(mask)))
        output = engine.run(batch, outputs).extract(batch.placements[0], sequence, outputs)
        difference = output.get(Output.SEQUENCE) - expected["sequence_output"][row]
        assert np.abs(difference[mask == 1]).max() <= 1e-5
        assert np.abs(output.get(Output.POOLED) - expected["pooled_output"][row]).max() <= 1e-5


def test_a_new_preset_names_where_the_class_is(tmp_path: Path) -> None:
    ElectraBackbone(10, 1, 2, 8, 4, 16, hidden_activation="gelu").save_to_preset(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["module"] == ElectraBackbone.__module__
    assert saved["class_name"] == ElectraBackbone.__name__
    assert saved["registered_name"] == keras.saving.get_registered_name(ElectraBackbone)


def test_a_whole_model_saved_by_0_1_0_loads(tmp_path: Path, expected: dict[str, Any]) -> None:
    saved, moved = tmp_path / "saved.keras", tmp_path / "moved.keras"
    ElectraBackbone.from_preset(str(GOLDEN / "below"), hidden_activation="gelu").save(saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(moved, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content.replace(MOVED_TO.encode(), MOVED_FROM.encode()))
    with zipfile.ZipFile(moved) as archive:
        assert json.loads(archive.read("config.json"))["module"] == f"{MOVED_FROM}backbone"
    inputs, _ = read_case("below", "everything")
    assert_equal(keras.saving.load_model(moved)(inputs), expected)


@pytest.mark.parametrize("registered_name", LAYERS)
def test_a_layer_saved_by_0_1_0_loads(registered_name: str) -> None:
    layer = LAYERS[registered_name]()
    saved = keras.saving.serialize_keras_object(layer)
    assert saved["registered_name"] == registered_name
    module = saved["module"].replace(MOVED_TO, MOVED_FROM)
    assert module.startswith(MOVED_FROM)
    loaded = keras.saving.deserialize_keras_object({**saved, "module": module})
    assert type(loaded) is type(layer)
    assert loaded.get_config() == layer.get_config()


def assert_equal(outputs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(np.asarray(outputs[name]), values)
