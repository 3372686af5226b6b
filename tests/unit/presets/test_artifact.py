"""The manifest of a compiled artifact, literally: it is read, and the same is written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import pytest

from electra_serve.errors import PresetError
from electra_serve.presets.artifact import Artifact, read_artifact, write_artifact

MANIFEST_FILE: Final = "electra-serve.artefact.json"
CONTENT: Final = b"written by version 0.1.0"
SHA256: Final = hashlib.sha256(CONTENT).hexdigest()
MANIFEST: Final[dict[str, Any]] = {
    "format": 3,
    "engine": "openvino",
    "dtype": "float32",
    "preset": "electra_demo",
    "preset_sha256": "f1b45080123fde7f20f63cb4ea53f3d385913384b772eceb443f0f92eeb0bf16",
    "weights": "random",
    "pooler": "random",
    "made_by": {"electra-serve": "0.1.0", "openvino": "2026.4.1-22982-e213a147257-releases/2026/4"},
    "files": dict.fromkeys(("config.json", "model.bin", "model.xml"), SHA256),
}
"""Literal, so that a field that is renamed here is noticed: folders that were compiled before keep the old name."""
FIELDS: Final = {name: value for name, value in MANIFEST.items() if name != "format"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(MANIFEST, indent=2) + "\n")
    for name in MANIFEST["files"]:
        (tmp_path / name).write_bytes(CONTENT)
    return tmp_path


def test_the_manifest_is_read(folder: Path) -> None:
    assert read_artifact(folder) == Artifact(**FIELDS)


def test_the_same_manifest_is_written(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    written = tmp_path_factory.mktemp("written")
    write_artifact(written, read_artifact(folder))
    assert (written / MANIFEST_FILE).read_bytes() == (folder / MANIFEST_FILE).read_bytes()


@pytest.mark.parametrize("name", FIELDS)
def test_a_manifest_that_lacks_a_field_is_rejected(folder: Path, name: str) -> None:
    rest = {key: value for key, value in MANIFEST.items() if key != name}
    (folder / MANIFEST_FILE).write_text(json.dumps(rest))
    with pytest.raises(PresetError, match=r"must have the fields .*: compile the preset again"):
        read_artifact(folder)
