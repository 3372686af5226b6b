"""Every tokenizer folder gives transformers' ids, or takes no text. Needs transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.conformance.tokenizer_comparison import TEXTS, compare, texts
from tests.conformance.tokenizer_folders import Folder, folders

pytestmark = pytest.mark.conformance


def test_there_are_enough_of_them() -> None:
    assert len(folders()) >= 60
    assert len(set(texts())) >= TEXTS - 5


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_ids_are_equal_or_texts_are_rejected(folder: Folder, tmp_path: Path) -> None:
    found = compare(folder, tmp_path / "folder")
    assert not found.different, found.different[:3]
    assert (found.equal > 0) is folder.served, found.reason
