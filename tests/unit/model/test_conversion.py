"""Conversion to either format keeps all values, and leaves no partial folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from electra_serve.errors import PresetError
from electra_serve.model import ElectraBackbone
from electra_serve.model.conversion import convert
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.conversion import TOKENIZER_FILES
from electra_serve.presets.tokenizers.loader import NoTokenizer, load_tokenizer
from electra_serve.presets.transformers_heads import ARCHITECTURES
from electra_serve.presets.weight_files.open import PresetFormat
from electra_serve.presets.weights import read_head_weights
from tests.data.reader import GOLDEN, PRESETS, STYLES, TRANSFORMERS
from tests.unit.presets.test_transformers_heads import checkpoint

TEXTS = ["The White Rabbit was late, very late!", "Isn't it? (Yes!) 1,000", ""]


def weights(path: Path | None) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return [np.asarray(weight) for weight in ElectraBackbone.from_preset(str(path)).weights]


def assert_same_weights(first: Path | None, second: Path | None) -> None:
    for before, after in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(before, after)


def ids(preset: PresetFolder) -> list[list[int]]:
    tokenizer = load_tokenizer(preset)
    assert not isinstance(tokenizer, NoTokenizer)
    return [list(row) for row in tokenizer.encode(TEXTS, max_length=512).token_ids]


@pytest.mark.parametrize("name", PRESETS)
def test_keras_to_transformers_and_back(name: str, tmp_path: Path) -> None:
    source = resolve_preset(str(GOLDEN / name))
    checkpoint = convert(source, tmp_path / "checkpoint", "transformers")
    back = convert(checkpoint, tmp_path / "back", "keras")
    assert (checkpoint.format, back.format) == ("transformers", "keras")
    assert checkpoint.config == back.config == source.config
    assert checkpoint.pooler == back.pooler == source.pooler == "pretrained"
    assert back.registered_name == "keras_hub>ElectraBackbone"
    assert_same_weights(source.path, back.path)


@pytest.mark.parametrize("style", STYLES)
def test_transformers_to_keras_and_back(style: str, tmp_path: Path) -> None:
    source = resolve_preset(str(TRANSFORMERS / style))
    keras = convert(source, tmp_path / "keras", "keras")
    back = convert(keras, tmp_path / "back", "transformers")
    assert keras.config == back.config == source.config
    assert keras.pooler == back.pooler == "random"
    assert keras.registered_name == (
        "keras_hub>ElectraBackbone" if style == "tanh" else "electra_serve>ElectraBackbone"
    )
    assert_same_weights(source.path, back.path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_heads_are_kept_bit_for_bit_in_both_directions(architecture: str, tmp_path: Path) -> None:
    source = resolve_preset(
        str(checkpoint(tmp_path / "source", architecture, 3, id2label={"0": "bad", "1": "good", "2": "neither"}))
    )
    keras = convert(source, tmp_path / "keras", "keras")
    back = convert(keras, tmp_path / "back", "transformers")
    assert source.head is not None
    assert keras.head == back.head == source.head
    expected = dict(read_head_weights(source, load_weights=True))
    for written in (keras, back):
        found = dict(read_head_weights(written, load_weights=True))
        assert found.keys() == expected.keys()
        for path, values in found.items():
            np.testing.assert_array_equal(values, expected[path])
        assert written.path is not None
        assert_same_weights(source.path, written.path)
    again, original = (load_file(folder / "model.safetensors") for folder in (tmp_path / "back", tmp_path / "source"))
    for name, tensor in original.items():  # under the same names, a pooler more
        np.testing.assert_array_equal(again[name], tensor)


def test_a_head_is_left_out_on_request(tmp_path: Path) -> None:
    source = resolve_preset(str(checkpoint(tmp_path / "source", "ElectraForQuestionAnswering")))
    keras = convert(source.with_head("none"), tmp_path / "keras", "keras")
    assert (keras.head_name, (tmp_path / "keras/head.json").exists()) == ("none", False)


def test_weights_of_a_head_that_do_not_fit_are_rejected(tmp_path: Path) -> None:
    source = resolve_preset(str(checkpoint(tmp_path / "source", "ElectraForQuestionAnswering")))
    convert(source, tmp_path / "keras", "keras")
    description = tmp_path / "keras/head.json"
    labels = {"kind": "token_classification", "labels": ["a", "b", "c"]}
    description.write_text(json.dumps(json.loads(description.read_text()) | labels))
    with pytest.raises(PresetError, match=r"head/output/vars/0 must have shape \(16, 3\); it has \(16, 2\)"):
        dict(read_head_weights(resolve_preset(str(tmp_path / "keras")), load_weights=True))
    (tmp_path / "keras/head.weights.h5").unlink()
    with pytest.raises(PresetError, match=r"head\.weights\.h5: cannot be read"):
        resolve_preset(str(tmp_path / "keras"))


@pytest.mark.parametrize("load_weights", [True, False])
def test_weights_of_a_head_without_its_description_are_rejected(load_weights: bool, tmp_path: Path) -> None:
    source = resolve_preset(str(checkpoint(tmp_path / "source", "ElectraForQuestionAnswering")))
    convert(source, tmp_path / "keras", "keras")
    (tmp_path / "keras/head.json").unlink()
    found = resolve_preset(str(tmp_path / "keras"), load_weights=load_weights)
    with pytest.raises(PresetError, match=r"head.json must describe the head of head.weights.h5; it is missing; `head"):
        found.with_head("auto")
    assert found.with_head("none").head_name == "none"


def test_the_demo_keeps_its_tokenizer_and_its_embedding(tmp_path: Path) -> None:
    source = resolve_preset("electra_demo")
    checkpoint = convert(source, tmp_path / "checkpoint", "transformers")
    back = convert(checkpoint, tmp_path / "back", "keras")
    assert {preset.weights for preset in (source, checkpoint, back)} == {"pretrained"}
    assert {preset.embedding.normalize for preset in (source, checkpoint, back)} == {True}
    assert ids(source) == ids(checkpoint) == ids(back)
    assert source.path is not None
    for name in ("tokenizer.json", "assets/tokenizer/vocabulary.txt"):
        assert (tmp_path / "back" / name).read_bytes() == (source.path / name).read_bytes()


@pytest.mark.parametrize("to", ["keras", "transformers"])
def test_the_same_format_copies_the_tokenizer(to: PresetFormat, tmp_path: Path) -> None:
    source = convert(resolve_preset("electra_demo"), tmp_path / "source", to)
    copy = convert(source, tmp_path / "copy", to)
    assert (source.format, copy.format) == (to, to)
    assert source.path is not None
    assert copy.path is not None
    names = [name for name in TOKENIZER_FILES[to] if (source.path / name).is_file()]
    assert len(names) >= 2
    for name in names:
        assert (copy.path / name).read_bytes() == (source.path / name).read_bytes()


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_what_is_there_is_not_written_over(taken: str, tmp_path: Path) -> None:
    destination = tmp_path / "there"
    if taken == "folder":
        destination.mkdir()
        (destination / "mine").touch()
    else:
        destination.touch()
    with pytest.raises(PresetError, match="must be a folder that does not exist yet, or is empty; it is neither"):
        convert(resolve_preset(str(GOLDEN / "below")), destination, "transformers")


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert convert(resolve_preset(str(GOLDEN / "below")), tmp_path / "empty", "transformers").path is not None


def test_a_folder_that_cannot_be_created_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PresetError, match="cannot be written"):
        convert(resolve_preset(str(GOLDEN / "below")), tmp_path / "file" / "preset", "keras")


def drop_suffix(source: Path) -> None:
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["config"] |= {"suffix_indicator": "@@"}
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))


def drop_mask(source: Path) -> None:
    vocabulary = source / "assets/tokenizer/vocabulary.txt"
    vocabulary.write_text(vocabulary.read_text().replace("[MASK]", "[mask]"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_suffix, "transformers needs suffix_indicator ##; it is '@@'"),
        (drop_mask, "transformers needs the pieces [PAD], [UNK], [CLS], [SEP], [MASK]; [MASK] is missing"),
    ],
)
def test_nothing_is_left_of_a_conversion_that_fails(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(str(resolve_preset("electra_demo").path), tmp_path / "source"))
    change(source)
    with pytest.raises(PresetError) as caught:
        convert(resolve_preset(str(source)), tmp_path / "destination", "transformers")
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
