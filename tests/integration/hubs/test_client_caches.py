"""Files in a user's own cache: served without a download if intact, never if damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from electra_serve.errors import PresetError
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.hubs.manifest import read_manifest
from tests.integration.hubs.conftest import HF_REPO, KAGGLE_REPO, PRESET, Case, Stack, environment_of
from tests.integration.hubs.huggingface import FakeHuggingFace
from tests.integration.hubs.kaggle import FakeKaggle
from tests.integration.hubs.server import status

WEIGHTS = "model.weights.h5"
USERS = {
    "hf": f"import huggingface_hub; [huggingface_hub.hf_hub_download({HF_REPO!r}, name) for name in NAMES]",
    "kaggle": f"import kagglehub; [kagglehub.model_download('{KAGGLE_REPO}/2', name) for name in NAMES]",
}


def use_client(case: Case, home: Path, *names: str) -> Path:
    """Downloads files as a user does, and returns the cached weights."""
    program = f"NAMES = {list(names or PRESET)!r}\n{USERS[case.moving.partition(':')[0]]}"
    subprocess.run([sys.executable, "-c", program], env=environment_of(home, case.hub), check=True, timeout=120)
    cache = home / ".cache"
    (path, *_) = [*cache.rglob(f"snapshots/*/{WEIGHTS}"), *cache.rglob(f"2/{WEIGHTS}"), Path()]
    return path


def state(path: Path) -> tuple[int, int]:
    """Changes when a file is written or replaced."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def found(stack: Stack, case: Case, **options: bool) -> PresetFolder:
    preset = stack.make(case.hub, **options).find(case.pinned, load_weights=True)
    assert preset is not None
    assert preset.path is not None
    assert {name: (preset.path / name).read_bytes() for name in PRESET} == PRESET
    return preset


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_cached_files_are_served_from_where_they_are(stack: Stack, case: Case, tmp_path: Path) -> None:
    cached = use_client(case, tmp_path)
    before = state(cached)
    preset = found(stack, case)
    assert preset.weight_files[0].resolve() == cached.resolve()
    assert state(cached) == before


@pytest.mark.parametrize("damage", [truncate, alter])
def test_a_damaged_file_is_replaced_before_it_is_served(
    stack: Stack, case: Case, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    cached = use_client(case, tmp_path)
    damage(cached)
    found(stack, case)
    assert cached.read_bytes() == PRESET[WEIGHTS]


@pytest.mark.parametrize("damage", [truncate, alter])
def test_a_damaged_file_is_not_served_offline(
    stack: Stack, case: Case, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    damage(use_client(case, tmp_path))
    with pytest.raises(PresetError, match="not in the cache"):
        stack.make(offline=True).find(case.pinned, load_weights=True)


@pytest.mark.parametrize("damage", [truncate, alter])
def test_a_file_damaged_after_its_first_use_is_not_served(
    stack: Stack, case: Case, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    cached = use_client(case, tmp_path)
    found(stack, case)
    damage(cached)
    for offline in (True, False):
        with pytest.raises(PresetError, match=r"model\.weights\.h5 has .*pull .* fetches it again"):
            stack.make(case.hub, offline=offline).find(case.pinned, load_weights=True)


def test_offline_a_cached_preset_is_served_and_later_completed(
    stack: Stack, hf: FakeHuggingFace, tmp_path: Path
) -> None:
    case = Case(hf, f"hf://{HF_REPO}", f"hf://{HF_REPO}@{hf.branches[HF_REPO, 'main']}", "/resolve/")
    cached = use_client(case, tmp_path, "config.json", WEIGHTS)
    asked, before = len(hf.requests), state(cached)
    for handle in (case.moving, case.pinned):
        preset = stack.make(hf, offline=True).find(handle, load_weights=True)
        assert preset is not None
        assert preset.path is not None
        assert not read_manifest(preset.path).listed
    assert len(hf.requests) == asked
    found(stack, case)
    assert state(cached) == before


def test_a_cached_preset_is_served_during_an_outage(stack: Stack, hf: FakeHuggingFace, tmp_path: Path) -> None:
    case = Case(hf, f"hf://{HF_REPO}", f"hf://{HF_REPO}@{hf.branches[HF_REPO, 'main']}", "/resolve/")
    use_client(case, tmp_path)
    hf.spoil("/", status(503))
    found(stack, case)


def test_without_a_digest_a_cached_file_is_fetched_again(stack: Stack, kaggle: FakeKaggle, tmp_path: Path) -> None:
    kaggle.hashes = False
    case = Case(kaggle, f"kaggle://{KAGGLE_REPO}", f"kaggle://{KAGGLE_REPO}/2", "/blobs/")
    alter(use_client(case, tmp_path))
    found(stack, case)


def test_partial_files_do_not_stay_in_huggingfaces_cache(stack: Stack, hf: FakeHuggingFace, tmp_path: Path) -> None:
    hf.hang(WEIGHTS)
    with pytest.raises(PresetError, match="no byte arrived"):
        stack.make(hf, attempts=1, stall_timeout_s=2.0).find(f"hf://{HF_REPO}", load_weights=True)
    assert hf.paths(WEIGHTS)
    assert list((tmp_path / ".cache").rglob("*.incomplete")) == []
