"""Names to presets: each source, and each reason to reject a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from electra_serve.errors import PresetError
from electra_serve.presets.catalog import CATALOG
from electra_serve.presets.files import MAX_JSON_BYTES
from electra_serve.presets.sources import EmbeddedSource, LocalSource, resolve_preset
from tests.data.reader import GOLDEN


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "below", tmp_path / "my_preset"))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "sharded", tmp_path / "my_shards"))


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rejection(folder: Path, *, load_weights: bool = True) -> str:
    with pytest.raises(PresetError) as caught:
        resolve_preset(str(folder), load_weights=load_weights)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_the_demo_is_inside_the_package_and_trained() -> None:
    preset = resolve_preset("electra_demo")
    assert (preset.id, preset.source, preset.weights, preset.has_tokenizer) == (
        "electra_demo",
        "embedded",
        "pretrained",
        True,
    )
    assert len(preset.weight_files) == 1


def test_a_published_preset_without_weights_needs_no_files() -> None:
    for id_ in CATALOG:
        preset = resolve_preset(id_, load_weights=False)
        assert (preset.id, preset.source, preset.path, preset.weights) == (id_, "catalog", None, "random")
        assert preset.config == CATALOG[id_].config
        assert preset.revision is None


def test_an_alias_is_the_preset() -> None:
    preset = resolve_preset("electra_small_generator_en", load_weights=False)
    assert preset.id == "electra_small_generator_uncased_en"


def test_a_published_preset_that_cannot_be_fetched_names_both_hubs() -> None:
    with pytest.raises(
        PresetError, match=r"^cannot fetch electra_small_gen.*: kaggle://keras/.*; hf://keras/.*: not in"
    ):
        resolve_preset("electra_small_generator_en")


def test_a_local_folder_is_pretrained_unless_it_says_otherwise(folder: Path) -> None:
    preset = resolve_preset(str(folder))
    assert (preset.id, preset.source, preset.path) == ("my_preset", "local", folder)
    assert (preset.weights, preset.has_tokenizer, preset.config.embedding_dim) == ("pretrained", False, 8)
    rewrite(folder / "metadata.json", weights="random")
    assert resolve_preset(str(folder)).weights == "random"
    (folder / "metadata.json").unlink()
    assert resolve_preset(str(folder)).weights == "pretrained"


def test_without_weights_a_folder_needs_no_weight_files(folder: Path) -> None:
    (folder / "model.weights.h5").unlink()
    preset = resolve_preset(str(folder), load_weights=False)
    assert (preset.weights, preset.weight_files) == ("random", ())


def test_shards_are_found_in_order(sharded: Path) -> None:
    names = [file.name for file in resolve_preset(str(sharded)).weight_files]
    assert names == ["model_00000.weights.h5", "model_00001.weights.h5"]


def test_the_revision_changes_with_what_decides_the_numbers(folder: Path) -> None:
    before = resolve_preset(str(folder)).revision
    assert before is not None
    assert len(before) == 12
    rewrite(folder / "metadata.json", date_saved="today")
    assert resolve_preset(str(folder)).revision == before
    weights = folder / "model.weights.h5"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = resolve_preset(str(folder)).revision
    rewrite(folder / "config.json", module="elsewhere")
    assert len({before, changed, resolve_preset(str(folder)).revision}) == 3


def test_older_presets_name_kerasnlp(folder: Path) -> None:
    rewrite(folder / "config.json", registered_name="keras_nlp>ElectraBackbone")
    assert resolve_preset(str(folder)).registered_name == "keras_nlp>ElectraBackbone"


@pytest.mark.parametrize("name", ["", "electra_huge", "no/such/folder", "elec\0tra", "x" * 10_000])
def test_an_unknown_name_lists_what_is_valid(name: str) -> None:
    with pytest.raises(
        PresetError,
        match=r"a folder in KerasHub's or transformers' format, kaggle://.*, or one of electra_demo, electra_small",
    ):
        resolve_preset(name)


@pytest.mark.parametrize("name", ["kaggle://keras/electra/keras/electra_small_en/2", "hf://keras/x"])
def test_offline_a_handle_says_how_to_fetch_it(name: str) -> None:
    with pytest.raises(PresetError, match=f"hub.offline is set: run `electra-serve presets pull {name}` online"):
        resolve_preset(name)


def test_another_scheme_lists_what_is_valid() -> None:
    with pytest.raises(PresetError, match=r"must be kaggle://.* or hf://org/repo\[@revision\]; got 's3://b/c'"):
        resolve_preset("s3://b/c")


def test_a_folder_does_not_shadow_a_built_in_id(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.rename(folder.parent / "electra_demo")
    monkeypatch.chdir(folder.parent)
    assert resolve_preset("electra_demo").source == "embedded"
    assert resolve_preset("./electra_demo").source == "local"


def test_sources_leave_foreign_names_alone() -> None:
    assert EmbeddedSource().find("electra_other", load_weights=True) is None
    assert LocalSource().find("electra_demo_that_is_no_folder", load_weights=True) is None


@pytest.mark.parametrize(
    "name",
    ["keras_hub>BertBackbone", "Functional", "builtins>eval", "ElectraBackbone", None, ["x"], "x" * 9999],
)
def test_other_classes_are_rejected(folder: Path, name: object) -> None:
    rewrite(folder / "config.json", registered_name=name)
    assert "registered_name must be one of keras_hub>ElectraBackbone" in rejection(folder)


@pytest.mark.parametrize("name", ["BertBackbone", "Lambda", None])
def test_a_class_that_contradicts_the_registered_one_is_rejected(folder: Path, name: object) -> None:
    rewrite(folder / "config.json", class_name=name)
    assert "class_name must be ElectraBackbone" in rejection(folder)


@pytest.mark.parametrize("config", [None, [], "x", 3])
def test_a_config_that_is_no_object_is_rejected(folder: Path, config: object) -> None:
    rewrite(folder / "config.json", config=config)
    assert "config must be a JSON object" in rejection(folder)


def test_a_config_out_of_range_is_rejected(folder: Path) -> None:
    rewrite(folder / "config.json", config={"vocab_size": 10**12})
    assert "config.json: " in rejection(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "must be JSON in UTF-8; it is malformed"),
        (b"\xff{}", "must be JSON in UTF-8; it is malformed"),
        (b"[" * 100_000, "must be JSON in UTF-8; it is malformed"),
        (b"[]", "must hold a JSON object; it holds a list"),
        (b" " * (MAX_JSON_BYTES + 1), f"at most {MAX_JSON_BYTES} bytes are read"),
    ],
    ids=["broken", "not UTF-8", "deep", "list", "large"],
)
def test_a_malformed_config_is_rejected(folder: Path, content: bytes, message: str) -> None:
    (folder / "config.json").write_bytes(content)
    assert message in rejection(folder)


def test_json_of_the_largest_size_is_read(folder: Path) -> None:
    content = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(content.ljust(MAX_JSON_BYTES))
    assert resolve_preset(str(folder)).config.vocab_size == 60


@pytest.mark.parametrize("missing", ["config.json", "model.weights.h5"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    assert missing in rejection(folder)


def test_weights_too_large_for_the_config_are_rejected(folder: Path) -> None:
    with (folder / "model.weights.h5").open("r+b") as file:
        file.truncate(2**27)
    assert f"the files have {2**27}" in rejection(folder)


@pytest.mark.parametrize(
    "weight_map",
    [
        {"/layers": "../model.weights.h5"},
        {"/layers": "/etc/passwd"},
        {"/layers": ["model_00000.weights.h5", "a/b.weights.h5"]},
        {"/layers": "model_00000.keras"},
        {"/layers": "model_00009.weights.h5"},
        {"/layers": 3},
        {"/layers": [["model_00000.weights.h5"]]},
        {},
        [],
    ],
)
def test_a_shard_index_names_files_of_the_folder_only(sharded: Path, weight_map: object) -> None:
    rewrite(sharded / "model.weights.json", weight_map=weight_map)
    assert "shard" in rejection(sharded) or "file names" in rejection(sharded)
