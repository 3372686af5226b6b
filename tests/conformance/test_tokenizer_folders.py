"""Every tokenizer folder gives transformers' ids, or takes no text. Needs transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.conformance.random_folders import random_folder
from tests.conformance.tokenizer_comparison import CONTEXTS, TEXTS, compare, texts
from tests.conformance.tokenizer_folders import Folder, folders

RANDOM_FOLDERS = 200

pytestmark = pytest.mark.conformance


def test_there_are_enough_of_them() -> None:
    assert len(folders()) >= 60
    assert len(set(texts())) >= TEXTS - 5


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_ids_are_equal_or_texts_are_rejected(folder: Folder, tmp_path: Path) -> None:
    found = compare(folder, tmp_path / "folder")
    assert not found.different, found.different[:3]
    assert (found.equal > 0) is folder.served, found.reason


@pytest.mark.parametrize("seeds", [range(first, first + 25) for first in range(0, RANDOM_FOLDERS, 25)], ids=str)
def test_random_folders_give_equal_ids_or_are_rejected(seeds: range, tmp_path: Path) -> None:
    chosen = (*CONTEXTS, *texts()[-8:])
    found = [compare(random_folder(seed), tmp_path / str(seed), chosen) for seed in seeds]
    different = {comparison.folder: comparison.different[:2] for comparison in found if comparison.different}
    assert not different
    assert sum(comparison.equal > 0 for comparison in found) > len(seeds) / 3
