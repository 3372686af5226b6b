"""Handles over time: hubs that are down, branches that move, files that change on disk."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import h5py
import numpy as np
import pytest

from electra_serve.errors import PresetError
from electra_serve.presets.catalog import CATALOG
from electra_serve.presets.hubs.manifest import read_manifest
from electra_serve.presets.hubs.source import BuiltInSource
from tests.data.reader import GOLDEN
from tests.integration.hubs.conftest import HF_REPO, KAGGLE_REPO, PRESET, SHARDED, Case, Stack, files
from tests.integration.hubs.huggingface import FakeHuggingFace
from tests.integration.hubs.kaggle import FakeKaggle
from tests.integration.hubs.server import Fault, cut, flip, status

OTHER = {**PRESET, "metadata.json": b'{"parameter_count": 5504, "tasks": [], "date_saved": "later"}'}
ELECTRA_SMALL = CATALOG["electra_small_discriminator_uncased_en"]


def test_a_hub_that_is_down_is_an_error_without_a_copy(stack: Stack, case: Case) -> None:
    case.hub.spoil("/", status(503))
    with pytest.raises(PresetError, match="cannot be reached or does not respond"):
        stack.make(case.hub).find(case.moving, load_weights=True)
    assert stack.waits == [1.0]


def test_a_hub_that_is_down_is_a_warning_with_a_copy(
    stack: Stack, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    first = stack.make(case.hub).find(case.moving, load_weights=True)
    case.hub.spoil("/", status(503))
    assert stack.make(case.hub).find(case.moving, load_weights=True) == first
    assert "serving the cached revision" in caplog.text


def test_a_preset_that_was_withdrawn_is_not_served_from_the_copy(stack: Stack, case: Case) -> None:
    stack.make(case.hub).find(case.moving, load_weights=True)
    case.hub.spoil("/", status(403))
    with pytest.raises(PresetError, match="HTTP 403"):
        stack.make(case.hub).find(case.moving, load_weights=True)


def test_offline_only_the_copy_is_used(stack: Stack, case: Case) -> None:
    with pytest.raises(PresetError, match=f"hub.offline is set: run `electra-serve presets pull {case.moving}` online"):
        stack.make(case.hub, offline=True).find(case.moving, load_weights=True)
    first = stack.make(case.hub).find(case.moving, load_weights=True)
    asked = len(case.hub.requests)
    for handle in (case.moving, case.pinned):
        assert stack.make(case.hub, offline=True).find(handle, load_weights=True) == first
    assert len(case.hub.requests) == asked


def test_a_branch_that_moved_is_fetched_again(stack: Stack, hf: FakeHuggingFace) -> None:
    first = stack.make(hf).find(f"hf://{HF_REPO}", load_weights=True)
    downloads = len(hf.paths("/resolve/"))
    assert stack.make(hf).find(f"hf://{HF_REPO}", load_weights=True) == first
    assert len(hf.paths("/resolve/")) == downloads
    commit = hf.commit(HF_REPO, OTHER)
    second = stack.make(hf).find(f"hf://{HF_REPO}", load_weights=True)
    assert first is not None
    assert second is not None
    assert second.path is not None
    assert second.path.name == commit
    assert len(list(stack.cache.all())) == 2


def test_the_newest_version_is_what_kaggle_says(stack: Stack, kaggle: FakeKaggle) -> None:
    stack.make(kaggle).find(f"kaggle://{KAGGLE_REPO}/1", load_weights=True)
    newest = stack.make(kaggle).find(f"kaggle://{KAGGLE_REPO}", load_weights=True)
    assert newest is not None
    assert newest.path is not None
    assert newest.path.name == "2"


def test_shards_are_fetched_too(stack: Stack, hf: FakeHuggingFace) -> None:
    hf.commit("org/sharded", SHARDED)
    preset = stack.make(hf).find("hf://org/sharded", load_weights=True)
    assert preset is not None
    assert len(preset.weight_files) == 2


def test_a_shard_outside_the_folder_is_not_requested(stack: Stack, hf: FakeHuggingFace) -> None:
    index = json.dumps({"weight_map": {"/layers": "../../model_00000.weights.h5"}}).encode()
    hf.commit("org/climbs", {**SHARDED, "model.weights.json": index})
    with pytest.raises(PresetError, match=r"must name 1 to 1000 files \*.weights.h5 in its own folder"):
        stack.make(hf).find("hf://org/climbs", load_weights=True)
    assert not hf.paths("00000")
    assert not list(stack.cache.all())


def test_only_pickles_are_rejected_with_the_reason(stack: Stack, hf: FakeHuggingFace) -> None:
    hf.commit("org/pickled", {"config.json": PRESET["config.json"], "pytorch_model.bin": b"\x80\x04."})
    with pytest.raises(PresetError, match="they can run code"):
        stack.make(hf).find("hf://org/pickled", load_weights=True)
    assert not hf.paths("pytorch_model.bin")


def test_another_class_is_rejected_once_and_not_kept(stack: Stack, hf: FakeHuggingFace) -> None:
    config = json.loads(PRESET["config.json"]) | {"registered_name": "builtins>eval"}
    hf.commit("org/bert", {**PRESET, "config.json": json.dumps(config).encode()})
    with pytest.raises(PresetError, match=r"^hf://org/bert@[0-9a-f]{40}: config.json: registered_name must be one of"):
        stack.make(hf).find("hf://org/bert", load_weights=True)
    assert not list(stack.cache.all())
    assert stack.waits == []


def test_a_cut_file_is_resumed_where_kaggle_can(stack: Stack, kaggle: FakeKaggle) -> None:
    kaggle.spoil("model.weights.h5", cut(5000), times=1)
    assert stack.make(kaggle).find(f"kaggle://{KAGGLE_REPO}/2", load_weights=True) is not None
    ranges = [request.headers.get("Range") for request in kaggle.requests if "weights" in request.path]
    assert [wanted for wanted in ranges if wanted] != []


def test_without_a_digest_from_kaggle_a_pin_shows_the_difference(stack: Stack, kaggle: FakeKaggle) -> None:
    kaggle.hashes = False
    right = stack.make(kaggle).find(f"kaggle://{KAGGLE_REPO}/1", load_weights=True)
    kaggle.spoil("model.weights.h5", flip)
    wrong = stack.make(kaggle).find(f"kaggle://{KAGGLE_REPO}/2", load_weights=True)
    assert right is not None
    assert wrong is not None
    assert right.sha256 != wrong.sha256


def test_a_byte_that_was_flipped_on_disk_is_rejected(stack: Stack, case: Case) -> None:
    preset = stack.make(case.hub).find(case.pinned, load_weights=True)
    assert preset is not None
    path = preset.weight_files[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PresetError, match=r"model\.weights\.h5 has another SHA-256"):
        stack.make(case.hub).find(case.pinned, load_weights=True)


def test_a_client_that_crashes_is_reported(stack: Stack, hf: FakeHuggingFace) -> None:
    hf.spoil("/api/", lambda response: replace(response, body=b'{"id": 1, "siblings": 2}'))
    with pytest.raises(PresetError, match="the client ended: TypeError"):
        stack.make(hf).find(f"hf://{HF_REPO}", load_weights=True)


@pytest.fixture(scope="module")
def look_alike(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The architecture of a published preset, and as many bytes as its weights have."""
    config = json.loads(PRESET["config.json"]) | {"config": ELECTRA_SMALL.config.to_mapping()}
    weights = tmp_path_factory.mktemp("published") / "model.weights.h5"
    with h5py.File(weights, "w") as file:
        file["weights"] = np.zeros(ELECTRA_SMALL.parameters, np.float16)
        file["layers/dense_1/vars/1"] = np.zeros(ELECTRA_SMALL.config.hidden_dim, np.float16)  # the pooler's bias
    return {"config.json": json.dumps(config).encode(), "model.weights.h5": weights.read_bytes()}


@pytest.fixture
def published(kaggle: FakeKaggle, hf: FakeHuggingFace, look_alike: dict[str, bytes]) -> str:
    """The id of a published preset that both hubs have."""
    kaggle.models[f"keras/electra/keras/{ELECTRA_SMALL.id}"] = {2: look_alike}
    hf.commit(f"keras/{ELECTRA_SMALL.id}", look_alike)
    return ELECTRA_SMALL.id


@pytest.mark.parametrize(
    ("order", "fault", "source"),
    [
        (("kaggle", "hf"), None, "kaggle"),
        (("hf", "kaggle"), None, "hf"),
        (("kaggle", "hf"), status(503), "hf"),
        (("kaggle", "hf"), status(403), "hf"),
    ],
)
def test_a_built_in_id_comes_from_either_hub(
    stack: Stack, kaggle: FakeKaggle, hf: FakeHuggingFace, published: str, order: tuple[str, str], fault: Fault | None,
    source: str,
) -> None:  # fmt: skip
    if fault is not None:
        kaggle.spoil("/", fault)
    hubs = stack.make(kaggle, hf, max_bytes=10**8)
    built_in = BuiltInSource(hubs, order, logging.getLogger("test"))  # type: ignore[arg-type]
    preset = built_in.find(published, load_weights=True)
    assert preset is not None
    assert (preset.id, preset.source) == (published, source)
    asked = len(kaggle.requests), len(hf.requests)
    assert built_in.find(published, load_weights=True) == preset
    assert (len(kaggle.requests), len(hf.requests)) == asked


def test_a_built_in_id_is_nothing_but_its_architecture(stack: Stack, hf: FakeHuggingFace, kaggle: FakeKaggle) -> None:
    hf.commit(f"keras/{ELECTRA_SMALL.id}", PRESET)
    built_in = BuiltInSource(stack.make(kaggle, hf), ("hf", "kaggle"), logging.getLogger("test"))
    with pytest.raises(PresetError, match=r"with 13548800 parameters; hf has another one.*kaggle://"):
        built_in.find(ELECTRA_SMALL.id, load_weights=True)


def test_the_manifest_says_where_it_is_from(stack: Stack, case: Case) -> None:
    stack.make(case.hub).find(case.moving, load_weights=True)
    ((handle, folder),) = stack.cache.all()
    manifest = read_manifest(folder)
    assert str(handle) == manifest.source == case.pinned
    assert manifest.client.split()[0] in ("kagglehub", "huggingface_hub")


def test_a_transformers_checkpoint_comes_through(stack: Stack, hf: FakeHuggingFace) -> None:
    for name in ("discriminator", "sharded"):
        hf.commit(f"org/{name}", {**files(GOLDEN / "transformers" / name), "pytorch_model.bin": b"\x80\x04."})
        preset = stack.make(hf).find(f"hf://org/{name}", load_weights=True)
        assert preset is not None
        assert (preset.format, preset.source) == ("transformers", "hf")
    assert not hf.paths("pytorch_model.bin")
