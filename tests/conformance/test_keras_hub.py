"""KerasHub itself reads what is saved here. Needs keras-hub; its own files are read in tests/unit/model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from electra_serve.model import ElectraBackbone
from electra_serve.model.conversion import convert
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, load_tokenizer
from electra_serve.tensors import Truncation
from tests.data.reader import OUTPUTS, PRESETS, TRANSFORMERS, read_case, read_hidden

pytestmark = pytest.mark.conformance
keras_hub = pytest.importorskip("keras_hub")


@pytest.mark.parametrize("preset", PRESETS)
def test_kerashub_loads_what_is_saved_here(preset: str, tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "data" / preset
    ElectraBackbone.from_preset(str(golden)).save_to_preset(tmp_path)
    theirs = keras_hub.models.Backbone.from_preset(str(tmp_path))
    inputs, expected = read_case(preset, "everything")
    found = theirs(inputs, training=False)
    assert isinstance(theirs, keras_hub.models.ElectraBackbone)
    for name in OUTPUTS:
        assert np.abs(np.asarray(found[name]) - expected[name]).max() <= 1e-5


def test_kerashub_loads_the_demo_and_its_tokenizer() -> None:
    folder = resolve_preset("electra_demo")
    ours, tokenizer = ElectraBackbone.from_preset("electra_demo"), load_tokenizer(folder)
    assert not isinstance(tokenizer, NoTokenizer)
    theirs = keras_hub.models.ElectraBackbone.from_preset(str(folder.path))
    their_tokenizer = keras_hub.models.ElectraTokenizer.from_preset(str(folder.path))
    text = "The White Rabbit put on his spectacles: naïve?"
    token_ids = tokenizer.encode([text], max_length=64, truncation=Truncation.LONGEST_FIRST).token_ids[0]
    assert token_ids[1:-1].tolist() == np.asarray(their_tokenizer(text)).tolist()
    inputs = {
        "token_ids": token_ids[None],
        "segment_ids": np.zeros_like(token_ids[None]),
        "padding_mask": np.ones_like(token_ids[None]),
    }
    for name in OUTPUTS:
        difference = np.abs(np.asarray(theirs(inputs, training=False)[name]) - np.asarray(ours(inputs)[name]))
        assert difference.max() <= 1e-5


def test_kerashub_loads_a_converted_checkpoint(tmp_path: Path) -> None:
    convert(resolve_preset(str(TRANSFORMERS / "tanh")), tmp_path / "preset", "keras")
    theirs = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    inputs, _ = read_case("below", "everything")
    counted = inputs["padding_mask"].astype(bool)
    found = np.asarray(theirs(inputs, training=False)["sequence_output"])
    assert np.abs(found[counted] - read_hidden("tanh", "everything")[counted]).max() <= 1e-5


@pytest.mark.parametrize("split_on_cjk", [True, False])
def test_kerashub_loads_a_converted_tokenizer(split_on_cjk: bool, tmp_path: Path) -> None:
    checkpoint = convert(resolve_preset("electra_demo"), tmp_path / "checkpoint", "transformers")
    settings = tmp_path / "checkpoint" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "tokenize_chinese_chars": split_on_cjk}))
    preset = convert(checkpoint, tmp_path / "preset", "keras")
    ours, theirs = load_tokenizer(preset), keras_hub.models.ElectraTokenizer.from_preset(str(preset.path))
    assert not isinstance(ours, NoTokenizer)
    text = "The White Rabbit: naïve 日本? [MASK]"
    assert ours.encode([text], max_length=64, truncation=Truncation.LONGEST_FIRST).token_ids[0][1:-1].tolist() == list(
        theirs(text)
    )


def test_kerashub_rejects_what_it_cannot_express(tmp_path: Path) -> None:
    ElectraBackbone(10, 1, 2, 8, intermediate_dim=16, hidden_activation="gelu").save_to_preset(tmp_path)
    with pytest.raises(ValueError, match=r"electra_serve>ElectraBackbone|not a subclass"):
        keras_hub.models.Backbone.from_preset(str(tmp_path))
