"""Offsets and windows are those of transformers' tokenizers. Needs transformers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import transformers

from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.alignment import NO_TEXT, Alignment
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer, load_tokenizer
from electra_serve.presets.tokenizers.pairs import TextOrPair
from tests.conformance.tokenizer_comparison import texts
from tests.conformance.tokenizer_folders import Folder, folders
from tests.conformance.transformers_text import sentences

NO_LIMIT = 10**6
WINDOW, STRIDE = 40, 9

SERVED = [folder for folder in folders() if folder.served]

pytestmark = pytest.mark.conformance

Row = list[tuple[int, int | None, int, int]]


def ours(ids: Any, alignment: Alignment) -> Row:
    """Id, text, start and end of each position."""
    of = [None if text == NO_TEXT else text for text in alignment.texts.tolist()]
    return list(zip(ids.tolist(), of, alignment.starts.tolist(), alignment.ends.tolist(), strict=True))


def theirs(encoded: Any, row: int) -> Row:
    """The same of transformers."""
    ids, offsets = encoded["input_ids"][row], encoded["offset_mapping"][row]
    return [(id_, of, *offset) for id_, of, offset in zip(ids, encoded.sequence_ids(row), offsets, strict=True)]


def load(path: Path) -> Tokenizer:
    tokenizer = load_tokenizer(resolve_preset(str(path), load_weights=False))
    assert not isinstance(tokenizer, NoTokenizer)
    return tokenizer


def batched(text: TextOrPair) -> tuple[list[str], ...]:
    return ([text],) if isinstance(text, str) else ([text[0]], [text[1]])


@pytest.mark.parametrize("folder", SERVED, ids=lambda folder: folder.name)
def test_offsets_are_equal(folder: Folder, tmp_path: Path) -> None:
    folder.write(tmp_path / "folder")
    tokenizer = load(tmp_path / "folder")
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    for text in texts():
        found = tokenizer.encode([text], max_length=NO_LIMIT, aligned=True)
        assert found.alignments is not None
        expected = reference(*batched(text), return_offsets_mapping=True)
        assert ours(found.token_ids[0], found.alignments[0]) == theirs(expected, 0), text


@pytest.mark.parametrize("pair", [False, True], ids=["text", "pair"])
@pytest.mark.parametrize("folder", SERVED[:6], ids=lambda folder: folder.name)
def test_windows_are_equal(folder: Folder, pair: bool, tmp_path: Path) -> None:
    folder.write(tmp_path / "folder")
    tokenizer = load(tmp_path / "folder")
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    options = {"return_offsets_mapping": True, "return_overflowing_tokens": True, "stride": STRIDE}
    chosen = random.Random(7).sample([sentence for sentence in sentences() if len(sentence) > 300], 40)
    several = 0
    for context in chosen:
        text: TextOrPair = ("Who said that to Alice?", context) if pair else context
        found = tokenizer.encode([text], max_length=WINDOW, stride=STRIDE, aligned=True)
        assert found.alignments is not None
        rule = "only_second" if pair else "only_first"
        expected = reference(*batched(text), max_length=WINDOW, truncation=rule, **options)
        rows = [ours(ids, alignment) for ids, alignment in zip(found.token_ids, found.alignments, strict=True)]
        assert rows == [theirs(expected, row) for row in range(len(expected["input_ids"]))]
        several += len(rows) > 1
    assert several > len(chosen) / 2
