"""The same ids as KerasHub's tokenizer, and what is only ours: pairs, truncation, bounds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.errors import PresetError
from electra_serve.presets.folder import VOCABULARY_FILE
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.keras_hub import (
    MAX_VOCABULARY_BYTES,
    MAX_WORD_CHARACTERS,
    KerasTokenizer,
    TokenizerConfig,
)
from electra_serve.presets.tokenizers.loader import NO_FILES, NoTokenizer, Tokenizer, load_tokenizer
from electra_serve.presets.tokenizers.pairs import keep_as_keras_hub
from electra_serve.tensors import Truncation
from tests.data.reader import GOLDEN, VOCABULARY

CLS, SEP = 101, 102
NO_LIMIT = 10**6


@pytest.fixture(scope="module")
def demo_path() -> Path:
    path = resolve_preset("electra_demo").path
    assert path is not None
    return path


@pytest.fixture(scope="module")
def demo() -> Tokenizer:
    tokenizer = load_tokenizer(resolve_preset("electra_demo"))
    assert not isinstance(tokenizer, NoTokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / "tokenizer.json").read_text())
    return content


@pytest.fixture(scope="module")
def vocabulary(golden: dict[str, Any]) -> list[str]:
    return [*VOCABULARY.read_text(encoding="utf-8").splitlines(), *golden["extra_pieces"]]


@pytest.mark.parametrize("setting", range(4))
def test_ids_are_kerashubs(golden: dict[str, Any], vocabulary: list[str], setting: int) -> None:
    expected = golden["settings"][setting]
    config = TokenizerConfig(lowercase=expected["lowercase"], strip_accents=expected["strip_accents"])
    found = KerasTokenizer(vocabulary, config).encode(golden["texts"], max_length=0)
    assert len(golden["texts"]) > 300
    for text, ours, theirs in zip(golden["texts"], found.token_ids, expected["ids"], strict=True):
        assert ours.tolist() == [CLS, *theirs, SEP], repr(text)


def test_pairs_are_packed_as_kerashub_packs_them(golden: dict[str, Any], vocabulary: list[str]) -> None:
    tokenizer = KerasTokenizer(vocabulary, TokenizerConfig(lowercase=True))
    for row in golden["pairs"]:
        found = tokenizer.encode(
            [tuple(row["texts"])], max_length=row["max_length"], truncation=Truncation.LONGEST_FIRST
        )
        assert found.token_ids[0].tolist() == row["token_ids"]
        assert found.segment_ids[0].tolist() == row["segment_ids"]


def test_results_are_int32_arrays(demo: Tokenizer) -> None:
    found = demo.encode(["the rabbit", ("", "")], max_length=NO_LIMIT, truncation=Truncation.LONGEST_FIRST)
    assert {array.dtype for array in (*found.token_ids, *found.segment_ids)} == {np.dtype(np.int32)}
    assert found.token_ids[1].tolist() == [CLS, SEP, SEP]
    assert found.segment_ids[1].tolist() == [0, 0, 1]
    assert found.truncated == (False, False)


def test_nothing_in_gives_nothing_out(demo: Tokenizer) -> None:
    assert demo.encode([], max_length=8, truncation=Truncation.LONGEST_FIRST).token_ids == ()


def test_special_pieces_in_a_text_are_just_text(demo: Tokenizer) -> None:
    ids = demo.encode(["[CLS] [SEP] [PAD]"], max_length=NO_LIMIT).token_ids[0][1:-1]
    assert not {0, CLS, SEP} & set(ids.tolist())


@pytest.mark.parametrize(("max_length", "truncated"), [(5, True), (6, False), (7, False)])
def test_truncation_keeps_the_last_separator(demo: Tokenizer, max_length: int, truncated: bool) -> None:
    whole = demo.encode(["a b c d"], max_length=max_length)
    found = demo.encode(["a b c d"], max_length=max_length, truncation=Truncation.LONGEST_FIRST)
    assert whole.truncated == (False,)
    assert found.truncated == (truncated,)
    assert found.token_ids[0].tolist() == [*whole.token_ids[0][: max_length - 1].tolist()[:5], SEP]


def test_the_smallest_lengths_hold_only_special_pieces(demo: Tokenizer) -> None:
    found = demo.encode(["a b"], max_length=2, truncation=Truncation.LONGEST_FIRST)
    assert (found.token_ids[0].tolist(), found.truncated) == ([CLS, SEP], (True,))
    found = demo.encode([("a b", "c")], max_length=3, truncation=Truncation.LONGEST_FIRST)
    assert (found.token_ids[0].tolist(), found.truncated) == ([CLS, SEP, SEP], (True,))


@given(
    st.lists(st.one_of(st.text(max_size=40), st.tuples(st.text(max_size=40), st.text(max_size=40)))), st.integers(3, 20)
)
def test_truncation_is_a_bound_and_says_when_it_cut(
    demo: Tokenizer, texts: Sequence[str | tuple[str, str]], max_length: int
) -> None:
    whole = demo.encode(texts, max_length=max_length)
    found = demo.encode(texts, max_length=max_length, truncation=Truncation.LONGEST_FIRST)
    for i in range(len(texts)):
        assert len(found.token_ids[i]) == len(found.segment_ids[i]) == min(max_length, len(whole.token_ids[i]))
        assert found.truncated[i] == (len(whole.token_ids[i]) > max_length)
        assert found.token_ids[i][-1] == SEP


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 30))
def test_of_a_pair_the_longer_is_cut_first(first: int, second: int, budget: int) -> None:
    kept = keep_as_keras_hub(first, second, budget)
    assert sum(kept) == min(budget, first + second)
    if kept[0] < first and kept[1] < second:
        assert kept[0] - kept[1] in {0, 1}
    elif kept[0] < first:
        assert kept[0] >= kept[1]
    elif kept[1] < second:
        assert kept[1] >= kept[0] - 1


def test_with_truncation_a_huge_text_looks_up_few_words(demo: Tokenizer) -> None:
    looked_up: list[int] = []

    class CountingPieces:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def encode_batch_fast(self, texts: list[list[str]], **kwargs: bool) -> Any:
            looked_up.extend(map(len, texts))
            return self._inner.encode_batch_fast(texts, **kwargs)

    tokenizer = KerasTokenizer(["[UNK]", "[CLS]", "[SEP]", "a"], TokenizerConfig())
    tokenizer._pieces = CountingPieces(tokenizer._pieces)  # type: ignore[assignment]
    assert tokenizer.encode(["a " * 50_000], max_length=16, truncation=Truncation.LONGEST_FIRST).truncated == (True,)
    assert looked_up == [16]


def test_a_huge_word_is_one_unknown_piece(demo: Tokenizer) -> None:
    assert demo.encode(["a" * 10**6], max_length=16, truncation=Truncation.LONGEST_FIRST).token_ids[0].tolist() == [
        CLS,
        100,
        SEP,
    ]


@pytest.mark.parametrize(("characters", "known"), [(MAX_WORD_CHARACTERS, True), (MAX_WORD_CHARACTERS + 1, False)])
def test_a_word_is_folded_up_to_a_bound(demo: Tokenizer, characters: int, known: bool) -> None:
    word = "a".ljust(characters, "\N{HANGUL FILLER}")  # folding drops all but the letter
    found = demo.encode([word, "a"], max_length=16).token_ids
    assert (found[0].tolist() == found[1].tolist()) is known


def test_a_preset_without_tokenizer_has_none() -> None:
    assert load_tokenizer(resolve_preset(str(GOLDEN / "below"))) == NO_FILES
    assert load_tokenizer(resolve_preset("electra_base_generator_en", load_weights=False)) == NO_FILES


@pytest.fixture
def folder(demo_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_path, tmp_path / "preset"))


def rejection(folder: Path) -> str:
    with pytest.raises(PresetError) as caught:
        load_tokenizer(resolve_preset(str(folder), load_weights=False))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def reason(folder: Path) -> str:
    found = load_tokenizer(resolve_preset(str(folder), load_weights=False))
    assert isinstance(found, NoTokenizer)
    assert str(folder) not in found.reason
    return found.reason


def configure(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["config"] |= changes
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": False}, "split must be true"),
        ({"special_tokens_in_strings": True}, "special_tokens_in_strings false"),
        ({"oov_token": "[NONE]"}, "must have [CLS], [SEP] and [NONE]"),
    ],
)
def test_settings_it_does_not_have_leave_ids_only(folder: Path, changes: dict[str, object], message: str) -> None:
    configure(folder, **changes)
    assert message in reason(folder)


def test_a_malformed_setting_is_rejected(folder: Path) -> None:
    configure(folder, lowercase="yes")
    assert "lowercase must be like False" in rejection(folder)


def test_settings_decide_the_ids(folder: Path) -> None:
    text = ["Café 1"]

    def ids() -> list[int]:
        tokenizer = load_tokenizer(resolve_preset(str(folder), load_weights=False))
        assert not isinstance(tokenizer, NoTokenizer)
        return list(tokenizer.encode(text, max_length=NO_LIMIT).token_ids[0])

    plain = ids()
    configure(folder, strip_accents=False)
    accented = ids()
    configure(folder, lowercase=False)
    assert 100 not in plain
    assert accented != plain
    assert ids()[1] == 100


def test_another_class_leaves_ids_only(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"registered_name": "builtins>eval", "config": {}}')
    assert "must be of one of keras_hub>ElectraTokenizer" in reason(folder)


def test_a_vocabulary_larger_than_the_models_leaves_ids_only(folder: Path) -> None:
    with (folder / VOCABULARY_FILE).open("a") as file:
        file.write("onemore\n")
    assert "must be below 8000, as the model's vocab_size says; one is 8000" in reason(folder)


def test_a_blank_last_line_is_no_piece(folder: Path) -> None:
    with (folder / VOCABULARY_FILE).open("a") as file:
        file.write("\n")
    assert not isinstance(load_tokenizer(resolve_preset(str(folder), load_weights=False)), NoTokenizer)


@pytest.mark.parametrize(
    ("truncation", "text", "kept"),
    [
        (Truncation.RIGHT, "a b c d", "a b c"),
        (Truncation.LEFT, "a b c d", "b c d"),
        (Truncation.ONLY_FIRST, "a b c d", "a b c"),
        (Truncation.ONLY_SECOND, "a b c d", "a b c d"),
        (Truncation.LEFT, ("a b c", "d"), ("c", "d")),
        (Truncation.RIGHT, ("a b c", "d"), ("a", "d")),
        (Truncation.ONLY_FIRST, ("a b", "d"), ("a", "d")),
        (Truncation.ONLY_FIRST, ("a", "b c d"), ("a", "b c d")),
        (Truncation.ONLY_SECOND, ("a", "b c d"), ("a", "b")),
        (Truncation.NONE, "a b c d", "a b c d"),
    ],
)
def test_each_rule_keeps_its_part(
    demo: Tokenizer, truncation: Truncation, text: str | tuple[str, str], kept: str | tuple[str, str]
) -> None:
    found = demo.encode([text], max_length=5, truncation=truncation)
    assert found.token_ids[0].tolist() == demo.encode([kept], max_length=5).token_ids[0].tolist()
    assert found.truncated == (text != kept,)


def test_the_left_rule_reads_a_long_text_to_its_end(demo: Tokenizer) -> None:
    found = demo.encode(["a " * 99 + "b c"], max_length=4, truncation=Truncation.LEFT)
    assert found.token_ids[0].tolist() == demo.encode(["b c"], max_length=4).token_ids[0].tolist()


def test_a_huge_vocabulary_is_rejected_unread(folder: Path) -> None:
    with (folder / VOCABULARY_FILE).open("r+b") as file:
        file.truncate(MAX_VOCABULARY_BYTES + 1)
    assert f"at most {MAX_VOCABULARY_BYTES} bytes are read" in rejection(folder)


def test_a_vocabulary_that_is_not_text_is_rejected(folder: Path) -> None:
    (folder / VOCABULARY_FILE).write_bytes(b"\xff\xfe")
    assert "must be readable UTF-8" in rejection(folder)
