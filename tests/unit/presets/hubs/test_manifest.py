"""A folder is used only as it was fetched, to the byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from electra_serve.errors import PresetError
from electra_serve.presets.digest import sha256_of, sha256_of_files
from electra_serve.presets.hubs.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    Manifest,
    read_manifest,
    record_files,
    verify,
    write_manifest,
)
from tests.data.reader import GOLDEN

NAMES = ("config.json", "metadata.json", "model.weights.h5")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(GOLDEN / "below", tmp_path / "preset"))
    write_manifest(folder, Manifest("hf://org/repo@main", "2026-11-23", "client 1", record_files(folder, NAMES)))
    return folder


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert verify(folder) == manifest
    assert manifest.size == sum((folder / name).stat().st_size for name in NAMES)


def test_what_we_add_ourselves_does_not_count(folder: Path) -> None:
    (folder / GOLDEN_FILE).write_text("{}")
    verify(folder)


def flip(folder: Path) -> None:
    path = folder / "model.weights.h5"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (flip, "model.weights.h5 has another SHA-256"),
        (lambda folder: (folder / "config.json").write_bytes(b"{}"), "config.json has 2 bytes, not"),
        (lambda folder: (folder / "metadata.json").unlink(), "'metadata.json' is missing"),
        (lambda folder: (folder / "model.weights.json").write_text("{}"), "'model.weights.json' was added"),
        (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "'link' was added"),
    ],
    ids=["byte", "size", "missing", "added", "link"],
)
def test_a_changed_folder_is_rejected(folder: Path, change: Callable[[Path], object], says: str) -> None:
    change(folder)
    with pytest.raises(PresetError) as caught:
        verify(folder)
    assert says in str(caught.value)
    assert "`electra-serve presets pull hf://org/repo@main` fetches it again" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"format": 2},
        {"format": 1, "files": []},
        {"format": 1, "files": {"a": {"size": 1}}},
        {"format": 1, "files": {}},
    ],
)
def test_a_malformed_manifest_is_rejected(folder: Path, content: object) -> None:
    (folder / MANIFEST_FILE).write_text(json.dumps(content))
    with pytest.raises(PresetError, match="must be"):
        verify(folder)


def test_a_folder_without_a_manifest_is_rejected(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()
    with pytest.raises(PresetError, match=MANIFEST_FILE):
        verify(folder)


def test_the_digest_of_files_is_what_a_shell_makes_of_them(folder: Path) -> None:
    # sha256sum config.json model.weights.h5 | LC_ALL=C sort -k 2 | sha256sum
    files = [folder / "model.weights.h5", folder / "config.json"]
    lines = f"{sha256_of(files[1])}  config.json\n{sha256_of(files[0])}  model.weights.h5\n"
    (folder / "lines").write_text(lines)
    assert sha256_of_files(folder, files) == sha256_of(folder / "lines")
