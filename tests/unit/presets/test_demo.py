"""The embedded preset is what its script makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from electra_serve.model.loading import load_backbone
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.folder import VOCABULARY_FILE
from electra_serve.presets.sources import resolve_preset
from tools import build_demo_preset


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / DEMO_ID
    build_demo_preset.build(folder)
    return folder


def test_the_script_makes_the_same_files_again(built: Path) -> None:
    embedded = build_demo_preset.DEMO
    ours, theirs = files(embedded), files(built)
    assert set(ours) == set(theirs)
    for name in set(ours) - {"model.weights.h5"}:  # HDF5's own bytes depend on its version, its numbers do not
        assert ours[name] == theirs[name], name


def test_the_script_makes_the_same_weights_again(built: Path) -> None:
    ours, theirs = (
        load_backbone(resolve_preset(preset), dtype="float32", load_weights=True).get_weights()
        for preset in (DEMO_ID, str(built))
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_special_pieces_have_berts_ids() -> None:
    path = build_demo_preset.DEMO / VOCABULARY_FILE
    pieces = path.read_text(encoding="utf-8").splitlines()
    special = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
    assert {piece: pieces.index(piece) for piece in special} == special
    assert len(pieces) == len(set(pieces)) == 4000


def test_it_stays_small() -> None:
    assert sum(map(len, files(build_demo_preset.DEMO).values())) < 4 * 10**6
