"""The same ids as transformers' tokenizer, what its files mean, and what they are refused for."""

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
from electra_serve.presets.tokenizers.loader import Tokenizer, load_tokenizer
from electra_serve.presets.tokenizers.transformers import (
    WINDOW_CHARACTERS_PER_ID,
    AddedPiece,
    TransformersTokenizer,
    TransformersTokenizerConfig,
)
from electra_serve.presets.tokenizers.transformers_files import (
    SETTINGS,
    SPECIAL_TOKENS,
    read_transformers_tokenizer,
    write_transformers_tokenizer,
)
from tests.data.reader import GOLDEN, TRANSFORMERS

CLS, SEP, MASK = 101, 102, 103
NO_LIMIT = 10**6


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((TRANSFORMERS / "tokenizer.json").read_text())
    return content


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [str(text) for text in json.loads((GOLDEN / "tokenizer.json").read_text())["texts"]]


@pytest.fixture(scope="module")
def vocabulary() -> dict[str, int]:
    path = resolve_preset("electra_demo").path
    assert path is not None
    extra = json.loads((GOLDEN / "tokenizer.json").read_text())["extra_pieces"]
    pieces = [*(path / VOCABULARY_FILE).read_text(encoding="utf-8").splitlines(), *extra]
    return {piece: id_ for id_, piece in enumerate(pieces)}


def make(vocabulary: dict[str, int], **settings: Any) -> TransformersTokenizer:
    added = {vocabulary[piece]: AddedPiece(piece) for piece in SPECIAL_TOKENS.values()}
    return TransformersTokenizer(TransformersTokenizerConfig(vocabulary, added, **settings))


@pytest.fixture(scope="module")
def tokenizer(vocabulary: dict[str, int]) -> TransformersTokenizer:
    return make(vocabulary)


def encode(tokenizer: Tokenizer, text: str | tuple[str, str], max_length: int | None = None) -> list[int]:
    truncate = max_length is not None
    found = tokenizer.encode([text], max_length=max_length or NO_LIMIT, truncate=truncate)
    return [int(id_) for id_ in found.token_ids[0]]


@pytest.mark.parametrize("setting", range(4))
def test_ids_are_transformers(
    golden: dict[str, Any], texts: list[str], vocabulary: dict[str, int], setting: int
) -> None:
    expected = golden["settings"][setting]
    settings = {ours: expected[name] for name, (ours, _) in SETTINGS.items() if name in expected}
    found = make(vocabulary, **settings).encode(texts, max_length=NO_LIMIT, truncate=False)
    assert len(texts) > 300
    for text, ours, theirs in zip(texts, found.token_ids, expected["ids"], strict=True):
        assert ours.tolist() == theirs, repr(text)


def test_pairs_are_cut_as_transformers_cuts_them(golden: dict[str, Any], tokenizer: Tokenizer) -> None:
    for row in golden["pairs"]:
        found = tokenizer.encode([tuple(row["texts"])], max_length=row["max_length"], truncate=True)
        assert found.token_ids[0].tolist() == row["token_ids"], row
        assert found.segment_ids[0].tolist() == row["segment_ids"], row


def test_special_pieces_in_a_text_are_as_in_transformers(golden: dict[str, Any], vocabulary: dict[str, int]) -> None:
    for row in golden["special"]:
        assert encode(make(vocabulary, split_special_tokens=row["split"]), row["text"]) == row["ids"], row


def test_results_are_int32_arrays(tokenizer: Tokenizer) -> None:
    found = tokenizer.encode(["the rabbit", ("", "")], max_length=NO_LIMIT, truncate=True)
    assert {array.dtype for array in (*found.token_ids, *found.segment_ids)} == {np.dtype(np.int32)}
    assert found.token_ids[1].tolist() == [CLS, SEP, SEP]
    assert found.truncated == (False, False)
    assert tokenizer.encode([], max_length=8, truncate=True).token_ids == ()


@given(
    st.lists(st.one_of(st.text(max_size=60), st.tuples(st.text(max_size=40), st.text(max_size=40)))), st.integers(3, 20)
)
def test_truncation_is_a_bound_and_says_when_it_cut(
    tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]], max_length: int
) -> None:
    whole = tokenizer.encode(texts, max_length=max_length, truncate=False)
    found = tokenizer.encode(texts, max_length=max_length, truncate=True)
    for i in range(len(texts)):
        assert len(found.token_ids[i]) == len(found.segment_ids[i]) == min(max_length, len(whole.token_ids[i]))
        assert found.truncated[i] == (len(whole.token_ids[i]) > max_length)
        assert found.token_ids[i][-1] == SEP


@given(st.text(st.sampled_from("ab \u00e9\u0301[\u65e5."), max_size=400), st.integers(2, 6))
def test_a_long_text_begins_with_the_ids_of_the_whole(tokenizer: Tokenizer, text: str, max_length: int) -> None:
    whole = encode(tokenizer, text)[:-1]
    assert encode(tokenizer, text, max_length)[:-1] == whole[: max_length - 1]


class CountingPipeline:
    """Counts the characters that reach the Rust side."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.characters = 0

    def encode_batch_fast(self, texts: list[str], **kwargs: bool) -> Any:
        self.characters += sum(map(len, texts))
        return self.inner.encode_batch_fast(texts, **kwargs)


@pytest.mark.parametrize(("piece", "read_to_the_end"), [("a", False), ("a b", True)])
def test_with_truncation_little_of_a_huge_text_is_read(piece: str, read_to_the_end: bool) -> None:
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "a b": 4}
    added = {vocabulary[piece]: AddedPiece(piece)}
    tokenizer = TransformersTokenizer(TransformersTokenizerConfig(vocabulary, added))
    pipeline = CountingPipeline(tokenizer._pipeline)
    tokenizer._pipeline = pipeline  # type: ignore[assignment]
    assert tokenizer.encode(["a " * 50_000], max_length=16, truncate=True).truncated == (True,)
    assert (pipeline.characters == 100_000) is read_to_the_end
    assert pipeline.characters <= (100_000 if read_to_the_end else 16 * WINDOW_CHARACTERS_PER_ID)


def test_a_huge_word_is_one_unknown_piece(tokenizer: Tokenizer) -> None:
    assert encode(tokenizer, "a" * 10**6, 16) == [CLS, 100, SEP]


def test_half_a_surrogate_pair_is_no_character(tokenizer: Tokenizer) -> None:
    assert encode(tokenizer, "a \ud800 b\udc00") == encode(tokenizer, "a \ufffd b\ufffd")


@pytest.fixture
def folder(tmp_path: Path, vocabulary: dict[str, int]) -> Path:
    shutil.copytree(TRANSFORMERS / "bare", tmp_path / "checkpoint")
    added = {vocabulary[piece]: AddedPiece(piece) for piece in SPECIAL_TOKENS.values()}
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps({**config, "vocab_size": len(vocabulary)}))
    write_transformers_tokenizer(TransformersTokenizerConfig(vocabulary, added), tmp_path / "checkpoint", 16)
    return tmp_path / "checkpoint"


def configure(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load(folder: Path) -> Tokenizer:
    tokenizer = load_tokenizer(resolve_preset(str(folder), load_weights=False))
    assert tokenizer is not None
    return tokenizer


def refusal(folder: Path) -> str:
    with pytest.raises(PresetError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read_back(folder: Path, vocabulary: dict[str, int]) -> None:
    config = read_transformers_tokenizer(folder)
    assert config.vocabulary == vocabulary
    assert config.added == {vocabulary[piece]: AddedPiece(piece) for piece in SPECIAL_TOKENS.values()}


@pytest.mark.parametrize("files", [("tokenizer.json",), ("vocab.txt",), ("vocab.txt", "tokenizer_config.json")])
def test_either_file_of_pieces_will_do(folder: Path, files: tuple[str, ...], tokenizer: Tokenizer) -> None:
    for path in folder.iterdir():
        if path.name not in {*files, "config.json"}:
            path.unlink()
    text = "Caf\u00e9 [MASK] \u65e5\u672c!"
    assert encode(load(folder), text) == encode(tokenizer, text)


def test_a_checkpoint_without_pieces_has_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()
    assert load_tokenizer(resolve_preset(str(folder), load_weights=False)) is None


def test_settings_decide_the_ids(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    plain = encode(load(folder), "Caf\u00e9")
    configure(path, strip_accents=False)
    accented = encode(load(folder), "Caf\u00e9")
    configure(path, do_lower_case=False)
    cased = encode(load(folder), "Caf\u00e9")
    assert len({tuple(plain), tuple(accented), tuple(cased)}) == 3


def test_pieces_may_be_added_behind_the_vocabulary(folder: Path, vocabulary: dict[str, int]) -> None:
    piece = {"id": len(vocabulary), "content": "<tag>", "lstrip": False, "special": False}
    stored = json.loads((folder / "tokenizer.json").read_text())
    configure(folder / "tokenizer.json", added_tokens=[*stored["added_tokens"], piece])
    assert f"at most {len(vocabulary)} pieces" in refusal(folder)
    configure(folder / "config.json", vocab_size=len(vocabulary) + 1)
    assert encode(load(folder), "x<tag>[MASK]")[2:-1] == [len(vocabulary), MASK]


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("tokenizer.json", {"model": {"type": "BPE"}}, "model must have type 'WordPiece'; it is 'BPE'"),
        ("tokenizer.json", {"model": 3}, "model must have type 'WordPiece'; it is 3"),
        ("tokenizer.json", {"model": {"continuing_subword_prefix": "@"}}, "must have continuing_subword_prefix '##'"),
        ("tokenizer.json", {"normalizer": {"type": "NFKC"}}, "normalizer must have type 'BertNormalizer'"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer must have type"),
        ("tokenizer.json", {"model": {"vocab": {}}}, "model.vocab must map texts to ids"),
        ("tokenizer.json", {"model": {"vocab": {"a": -1}}}, "model.vocab must map texts to ids"),
        ("tokenizer.json", {"model": {"vocab": {"\ud800": 1}}}, "model.vocab must map texts to ids"),
        ("tokenizer.json", {"added_tokens": [{"id": 5, "content": "\udfff"}]}, "must have a text as content"),
        ("tokenizer.json", {"model": {"vocab": {"a": 2**40}}}, "model.vocab must map texts to ids"),
        ("tokenizer.json", {"model": {"vocab": {"[CLS]": 0}}}, "must have [CLS], [SEP], [UNK]; it lacks [SEP]"),
        ("tokenizer.json", {"added_tokens": {"x": 1}}, "added_tokens must be a list"),
        ("tokenizer.json", {"added_tokens": [3]}, "an added piece must be an object with an id"),
        ("tokenizer.json", {"added_tokens": [{"id": 5, "content": ""}]}, "must have a text as content"),
        ("tokenizer.json", {"added_tokens": [{"id": 5, "content": "x", "lstrip": 1}]}, "true or false as flags"),
        ("tokenizer.json", {"added_tokens": [{"id": 5, "content": "<x>"}]}, "must have the next free id"),
        ("tokenizer_config.json", {"do_lower_case": "yes"}, "do_lower_case must be one of (True, False); it is 'yes'"),
        ("tokenizer_config.json", {"do_lower_case": 1}, "do_lower_case must be one of"),
        ("tokenizer_config.json", {"cls_token": 3}, "cls_token must be a text"),
        ("tokenizer_config.json", {"cls_token": {"content": "<s>"}}, "must have <s>, [SEP], [UNK]; it lacks <s>"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "an added piece must be an object with an id"),
    ],
)
def test_files_that_ask_for_something_else_are_refused(
    folder: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    configure(folder / file, **changes)
    assert message in refusal(folder)


def test_an_empty_vocabulary_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_bytes(b"")
    assert "must have [CLS], [SEP], [UNK]; it lacks [CLS]" in refusal(folder)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]"])
def test_malformed_files_are_refused(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    assert "tokenizer.json: must" in refusal(folder)
