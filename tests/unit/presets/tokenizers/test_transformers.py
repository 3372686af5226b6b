"""The same ids as transformers' tokenizer, the meaning of its files, and the reasons to reject them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Pipeline

from electra_serve.errors import PresetError
from electra_serve.presets.digest import sha256_of_files
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.bert_pipeline import (
    SETTINGS,
    SPECIAL_TOKENS,
    BertConfig,
    make_bert_pipeline,
    make_bert_template,
    read_bert_config,
    special_pieces,
    write_bert_files,
)
from electra_serve.presets.tokenizers.conversion import convert_tokenizer
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer, load_tokenizer
from electra_serve.presets.tokenizers.pairs import Slot, Template
from electra_serve.presets.tokenizers.transformers import WINDOW_CHARACTERS_PER_ID, TransformersTokenizer
from electra_serve.presets.tokenizers.transformers_files import read_checkpoint_files
from electra_serve.tensors import Truncation
from tests.data.reader import GOLDEN, TRANSFORMERS, VOCABULARY

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
    extra = json.loads((GOLDEN / "tokenizer.json").read_text())["extra_pieces"]
    pieces = [*VOCABULARY.read_text(encoding="utf-8").splitlines(), *extra]
    return {piece: id_ for id_, piece in enumerate(pieces)}


def make(vocabulary: dict[str, int], *, split: bool = False, **settings: Any) -> TransformersTokenizer:
    config = BertConfig(vocabulary, special_pieces(SPECIAL_TOKENS), **settings)
    pipeline = make_bert_pipeline(config)
    pipeline.encode_special_tokens = split
    return TransformersTokenizer(pipeline, make_bert_template(config, pipeline), splits_at_spaces=True)


@pytest.fixture(scope="module")
def tokenizer(vocabulary: dict[str, int]) -> TransformersTokenizer:
    return make(vocabulary)


def encode(tokenizer: Tokenizer, text: str | tuple[str, str], max_length: int | None = None) -> list[int]:
    truncation = Truncation.NONE if max_length is None else Truncation.LONGEST_FIRST
    found = tokenizer.encode([text], max_length=max_length or NO_LIMIT, truncation=truncation)
    return [int(id_) for id_ in found.token_ids[0]]


@pytest.mark.parametrize("setting", range(4))
def test_ids_are_transformers(
    golden: dict[str, Any], texts: list[str], vocabulary: dict[str, int], setting: int
) -> None:
    expected = golden["settings"][setting]
    settings = {ours: expected[name] for name, (ours, _) in SETTINGS.items() if name in expected}
    found = make(vocabulary, **settings).encode(texts, max_length=NO_LIMIT)
    assert len(texts) > 300
    for text, ours, theirs in zip(texts, found.token_ids, expected["ids"], strict=True):
        assert ours.tolist() == theirs, repr(text)


def test_pairs_are_cut_as_transformers_cuts_them(golden: dict[str, Any], tokenizer: Tokenizer) -> None:
    for row in golden["pairs"]:
        found = tokenizer.encode(
            [tuple(row["texts"])], max_length=row["max_length"], truncation=Truncation.LONGEST_FIRST
        )
        assert found.token_ids[0].tolist() == row["token_ids"], row
        assert found.segment_ids[0].tolist() == row["segment_ids"], row


def test_special_pieces_in_a_text_are_as_in_transformers(golden: dict[str, Any], vocabulary: dict[str, int]) -> None:
    for row in golden["special"]:
        assert encode(make(vocabulary, split=row["split"]), row["text"]) == row["ids"], row


def test_results_are_int32_arrays(tokenizer: Tokenizer) -> None:
    found = tokenizer.encode(["the rabbit", ("", "")], max_length=NO_LIMIT, truncation=Truncation.LONGEST_FIRST)
    assert {array.dtype for array in (*found.token_ids, *found.segment_ids)} == {np.dtype(np.int32)}
    assert found.token_ids[1].tolist() == [CLS, SEP, SEP]
    assert found.truncated == (False, False)
    assert tokenizer.encode([], max_length=8, truncation=Truncation.LONGEST_FIRST).token_ids == ()


@given(
    st.lists(st.one_of(st.text(max_size=60), st.tuples(st.text(max_size=40), st.text(max_size=40)))), st.integers(3, 20)
)
def test_truncation_is_a_bound_and_says_when_it_cut(
    tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]], max_length: int
) -> None:
    whole = tokenizer.encode(texts, max_length=max_length)
    found = tokenizer.encode(texts, max_length=max_length, truncation=Truncation.LONGEST_FIRST)
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


@pytest.mark.parametrize(
    ("splits_at_spaces", "truncation", "read_to_the_end"),
    [
        (True, Truncation.LONGEST_FIRST, False),
        (True, Truncation.ONLY_FIRST, False),
        (False, Truncation.RIGHT, True),
        (True, Truncation.LEFT, True),
    ],
)
def test_with_truncation_little_of_a_huge_text_is_read(
    splits_at_spaces: bool, truncation: Truncation, read_to_the_end: bool
) -> None:
    config = BertConfig({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}, special_pieces(SPECIAL_TOKENS))
    pipeline = CountingPipeline(make_bert_pipeline(config))
    tokenizer = TransformersTokenizer(
        pipeline,  # type: ignore[arg-type]
        Template.bert(1, 2),
        splits_at_spaces=splits_at_spaces,
    )
    assert tokenizer.encode(["a " * 50_000], max_length=16, truncation=truncation).truncated == (True,)
    assert (pipeline.characters == 100_000) is read_to_the_end
    assert pipeline.characters <= (100_000 if read_to_the_end else 16 * WINDOW_CHARACTERS_PER_ID)


def test_a_huge_word_is_one_unknown_piece(tokenizer: Tokenizer) -> None:
    assert encode(tokenizer, "a" * 10**6, 16) == [CLS, 100, SEP]


def test_half_a_surrogate_pair_is_no_character(tokenizer: Tokenizer) -> None:
    assert encode(tokenizer, "a \ud800 b\udc00") == encode(tokenizer, "a \ufffd b\ufffd")


@pytest.fixture
def folder(tmp_path: Path, vocabulary: dict[str, int]) -> Path:
    shutil.copytree(TRANSFORMERS / "bare", tmp_path / "checkpoint")
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps({**config, "vocab_size": len(vocabulary) + 4}))
    write_bert_files(BertConfig(vocabulary, special_pieces(SPECIAL_TOKENS)), tmp_path / "checkpoint", 16)
    return tmp_path / "checkpoint"


def configure(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **changes}))


def load(folder: Path) -> Tokenizer:
    tokenizer = load_tokenizer(resolve_preset(str(folder), load_weights=False))
    assert not isinstance(tokenizer, NoTokenizer), tokenizer.reason
    return tokenizer


def rejection(folder: Path) -> str:
    with pytest.raises(PresetError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def reason(folder: Path) -> str:
    found = load_tokenizer(resolve_preset(str(folder), load_weights=False))
    assert isinstance(found, NoTokenizer)
    assert "\n" not in found.reason
    assert str(folder) not in found.reason
    return found.reason


def test_what_is_written_is_read_back(folder: Path, vocabulary: dict[str, int]) -> None:
    config = read_bert_config(read_checkpoint_files(folder))
    assert config.vocabulary == vocabulary
    assert {role: str(piece) for role, piece in config.added.named.items()} == SPECIAL_TOKENS
    assert {str(piece): id_ for id_, piece in config.added.by_id.items()} == {
        piece: vocabulary[piece] for piece in SPECIAL_TOKENS.values()
    }


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
    assert reason(folder) == "the preset has no tokenizer"


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
    assert encode(load(folder), "x<tag>[MASK]")[2:-1] == [len(vocabulary), MASK]


def test_a_vocabulary_larger_than_the_models_leaves_ids_only(folder: Path, vocabulary: dict[str, int]) -> None:
    configure(folder / "config.json", vocab_size=len(vocabulary) - 1)
    assert f"must be below {len(vocabulary) - 1}, as the model's vocab_size says" in reason(folder)


def slow(folder: Path, end: str = "") -> None:
    """Leaves what transformers 3 saved: vocab.txt and the settings."""
    (folder / "tokenizer.json").unlink()
    (folder / "special_tokens_map.json").unlink()
    with (folder / "vocab.txt").open("a") as file:
        file.write(end)


@pytest.mark.parametrize("special", [{}, {"additional_special_tokens": ["[E1]", "[/E1]"]}])
def test_added_tokens_json_keeps_pieces_whole(
    folder: Path, vocabulary: dict[str, int], special: dict[str, Any]
) -> None:
    size = len(vocabulary)
    slow(folder)
    configure(folder / "added_tokens.json", **{"[E1]": size, "[/E1]": size + 1})
    configure(folder / "special_tokens_map.json", **special)
    ids = encode(load(folder), "[E1] the [/E1] rabbit")
    assert ids == [CLS, size, vocabulary["the"], size + 1, vocabulary["rabbit"], SEP]


@pytest.mark.parametrize("pieces", [["[E1]", "[/E1]"], {"start": "[E1]", "end": "[/E1]"}])
def test_extra_special_tokens_stay_whole(folder: Path, vocabulary: dict[str, int], pieces: object) -> None:
    configure(folder / "tokenizer_config.json", extra_special_tokens=pieces)
    assert encode(load(folder), "x[/E1]")[2:-1] == [len(vocabulary) + 1]


def test_a_listed_id_that_cannot_be_leaves_ids_only(folder: Path, vocabulary: dict[str, int]) -> None:
    slow(folder)
    configure(folder / "added_tokens.json", **{"[E1]": len(vocabulary) + 1})
    assert "must have the next free id" in reason(folder)


def test_every_tokenizer_file_is_in_the_digest_and_copied(folder: Path, tmp_path: Path) -> None:
    added = ["added_tokens.json", "sentence_bert_config.json"]
    for name in added:
        configure(folder / name)
    names = ["config.json", "tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", *added]
    preset = resolve_preset(str(folder), load_weights=False)
    assert preset.sha256 == sha256_of_files(folder, [folder / name for name in names])
    (tmp_path / "copy").mkdir()
    convert_tokenizer(preset, tmp_path / "copy", "transformers")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == set(names) - {"config.json"}


@pytest.mark.parametrize("end", ["\n", "\n\n"])
def test_blank_last_lines_of_a_vocabulary_are_no_pieces(
    folder: Path, vocabulary: dict[str, int], tokenizer: Tokenizer, end: str
) -> None:
    slow(folder, end)
    configure(folder / "config.json", vocab_size=len(vocabulary))
    assert encode(load(folder), "the rabbit") == encode(tokenizer, "the rabbit")


@pytest.mark.parametrize(
    ("file", "changes", "bound"),
    [
        ("tokenizer_config.json", {"model_max_length": 7}, 7),
        ("tokenizer_config.json", {"model_max_length": 10**30}, None),
        ("tokenizer_config.json", {"model_max_length": 1e30}, None),
        ("tokenizer_config.json", {"model_max_length": None}, None),
        ("sentence_bert_config.json", {"max_seq_length": 9}, 9),
        ("sentence_bert_config.json", {"max_seq_length": None}, 16),
    ],
)
def test_the_files_bound_the_length(folder: Path, file: str, changes: dict[str, Any], bound: int | None) -> None:
    configure(folder / file, **changes)
    assert load(folder).max_length == bound


def test_pairs_have_one_segment_if_the_model_gets_no_other(folder: Path) -> None:
    configure(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    assert load(folder).encode([("a", "b")], max_length=8).segment_ids[0].tolist() == [0] * 5


def test_the_files_choose_the_side(folder: Path, tokenizer: Tokenizer) -> None:
    configure(folder / "tokenizer_config.json", truncation_side="left")
    assert encode(load(folder), "a b c d", 4) == encode(tokenizer, "c d")
    right = load(folder).encode(["a b c d"], max_length=4, truncation=Truncation.RIGHT)
    assert right.token_ids[0].tolist() == encode(tokenizer, "a b")


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_a_generic_tokenizer_runs_tokenizer_json_as_it_is(folder: Path, vocabulary: dict[str, int], name: str) -> None:
    stored = json.loads((folder / "tokenizer.json").read_text())
    template = stored["post_processor"]
    template["single"] = template["single"][:-1]
    configure(
        folder / "tokenizer.json",
        normalizer={**stored["normalizer"], "lowercase": False},
        post_processor=template,
        truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
    )
    assert encode(load(folder), "THE rabbit hole")[0:3] == [CLS, vocabulary["the"], vocabulary["rabbit"]]
    configure(folder / "tokenizer_config.json", tokenizer_class=name)
    ids = encode(load(folder), "Rabbit the rabbit the")
    assert ids[-3:] == [vocabulary["the"], vocabulary["rabbit"], vocabulary["the"]]
    assert ids[1] != vocabulary["rabbit"]


def test_any_post_processor_gives_a_template(folder: Path) -> None:
    configure(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 7], "cls": ["<s>", 5], "trim_offsets": True}
    configure(folder / "tokenizer.json", post_processor={**roberta, "add_prefix_space": False})
    found = load(folder)
    assert isinstance(found, TransformersTokenizer)
    first = (Slot(id=5), Slot(text=0), Slot(id=7))
    assert found._packer.template == Template(first, (*first, Slot(id=7), Slot(text=1), Slot(id=7)))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class must be one of"),
        ("tokenizer_config.json", {"tokenizer_class": "ElectraSudachipyTokenizer"}, "got 'ElectraSudachipyTokenizer'"),
        ("tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizerFast"}, "got 'XLMRobertaTokenizerFast'"),
        ("tokenizer_config.json", {"tokenizer_class": 3}, "got 3"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["t.T", None]}}, "must not have auto_map"),
        ("tokenizer_config.json", {"auto_map": ["t.T", None]}, "must not have auto_map"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["x"]}, "must not have fast_tokenizer_files"),
        ("tokenizer_config.json", {"cls_token": 3}, "cls_token must be a text"),
        ("tokenizer_config.json", {"cls_token": None}, "cls_token must be a text; it is null"),
        ("tokenizer_config.json", {"cls_token": {"content": "<s>"}}, "cls_token must be a text or a piece"),
        ("tokenizer_config.json", {"sep_token": "the end"}, "must have no space, colon or dollar"),
        ("tokenizer_config.json", {"model_max_length": 2}, "model_max_length must be an integer from 3; it is 2"),
        ("tokenizer_config.json", {"truncation_side": "top"}, "truncation_side must be left or right"),
        ("tokenizer_config.json", {"model_input_names": "input_ids"}, "model_input_names must be a list"),
        ("tokenizer_config.json", {"split_special_tokens": 1}, "split_special_tokens must be true or false"),
        ("tokenizer_config.json", {"extra_special_tokens": 1}, "extra_special_tokens must be a list or an object"),
        ("tokenizer.json", {"model": {"type": "BPE"}}, "have model with type 'WordPiece'; it is 'BPE'"),
        ("tokenizer.json", {"model": 3}, "have model with type 'WordPiece'; it is 3"),
        ("tokenizer.json", {"model": {"continuing_subword_prefix": "@"}}, "with continuing_subword_prefix '##'"),
        ("tokenizer.json", {"normalizer": {"type": "NFKC"}}, "normalizer with type 'BertNormalizer'"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer with type"),
        ("tokenizer.json", {"model": {"vocab": {"[CLS]": 0}}}, "the piece for unknown words, [UNK]"),
        ("tokenizer.json", {"added_tokens": [{"id": 5, "content": "<x>"}]}, "must have the next free id"),
    ],
)
def test_a_tokenizer_that_is_not_reproduced_leaves_ids_only(
    folder: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    (folder / "special_tokens_map.json").unlink()  # which wins over tokenizer_config.json
    configure(folder / file, **changes)
    assert message in reason(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"type": "WordPiece", "unk_token": "<unk>", "vocab": {"a": 1}}}, "unk_token in its vocab"),
        ({"model": {"type": "WordPiece", "max_input_chars_per_word": 201}}, "max_input_chars_per_word up to 200"),
        ({"model": {"type": "BPE", "dropout": 0.1}}, "have no dropout"),
        ({"model": {"type": "BPE", "unk_token": "x", "vocab": {}}}, "unk_token in its vocab"),
        ({"model": {"type": "Unigram", "unk_id": None}}, "have an unk_id"),
        ({"model": {"vocab": {}}}, "must be one of BPE, Unigram, WordLevel, WordPiece; it is None"),
        ({"model": 3}, "must be one of BPE"),
        ({"normalizer": {"type": "Nothing"}}, "must be one that tokenizers reads"),
    ],
)
def test_a_pipeline_that_fails_on_some_texts_leaves_ids_only(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    configure(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    configure(folder / "tokenizer.json", **changes)
    assert message in reason(folder)


def test_a_generic_tokenizer_needs_tokenizer_json(folder: Path) -> None:
    configure(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    (folder / "tokenizer.json").unlink()
    assert reason(folder) == "a generic tokenizer needs tokenizer.json; there is none"


def test_another_vocabulary_next_to_vocab_txt_leaves_ids_only(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"x")
    load(folder)
    (folder / "tokenizer.json").unlink()
    assert "it is tokenizer.model" in reason(folder)


def test_the_class_in_config_json_counts_if_no_other_does(folder: Path) -> None:
    configure(folder / "config.json", tokenizer_class="BertJapaneseTokenizer")
    load(folder)
    configure(folder / "tokenizer_config.json", tokenizer_class=None)
    assert "BertJapaneseTokenizer" in reason(folder)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("tokenizer.json", {"model": {"vocab": {}}}, "model.vocab must map texts to ids"),
        ("tokenizer.json", {"model": {"vocab": {"a": -1}}}, "model.vocab must map texts to ids"),
        ("tokenizer.json", {"model": {"vocab": {"\ud800": 1}}}, "model.vocab must map texts to ids"),
        ("tokenizer.json", {"added_tokens": [{"id": 5, "content": "\udfff"}]}, "must have a text as content"),
        ("tokenizer.json", {"model": {"vocab": {"a": 2**40}}}, "model.vocab must map texts to ids"),
        ("tokenizer.json", {"added_tokens": {"x": 1}}, "added_tokens of tokenizer.json must be a list"),
        ("tokenizer.json", {"added_tokens": [3]}, "an added piece must have an id below"),
        ("tokenizer.json", {"added_tokens": [{"id": 5, "content": 7}]}, "must have a text as content"),
        ("tokenizer.json", {"added_tokens": [{"id": 5, "content": "x", "lstrip": 1}]}, "true or false as flags"),
        ("tokenizer_config.json", {"do_lower_case": "yes"}, "do_lower_case must be one of (True, False); it is 'yes'"),
        ("tokenizer_config.json", {"do_lower_case": 1}, "do_lower_case must be one of"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "an added piece must have an id below"),
        ("tokenizer_config.json", {"added_tokens_decoder": []}, "added_tokens_decoder must be an object"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": "x"}}, "must be an object with a text as content"),
    ],
)
def test_malformed_files_are_rejected_by_their_part(
    folder: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    configure(folder / file, **changes)
    assert message in rejection(folder)


KEYS = (
    "added_tokens_decoder", "additional_special_tokens", "auto_map", "bos_token", "cls_token", "do_lower_case",
    "entity_token", "extra_special_tokens", "init_inputs", "model_input_names", "model_max_length",
    "model_specific_special_tokens", "pad_token", "split_special_tokens", "tokenizer_class", "truncation_side",
    "unk_token", "vocab",
)  # fmt: skip
PIECES = st.one_of(
    st.sampled_from(["[E1]", "[CLS]", "", "\ud800", "a b", None, 7, True, 1e30]),
    st.fixed_dictionaries({"content": st.sampled_from(["[E1]", 3])}, optional={"__type": st.just("AddedToken")}),
)
VALUES = PIECES | st.lists(PIECES, max_size=3) | st.dictionaries(st.sampled_from(["0", "4001", "x_token"]), PIECES)
CONTENTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONTENTS, CONTENTS, st.dictionaries(st.sampled_from(["[E1]", "\ud800"]), PIECES), st.booleans())
def test_whatever_the_files_hold_there_is_a_tokenizer_or_a_reason(
    folder: Path, config: dict[str, Any], special: dict[str, Any], added: dict[str, Any], generic: bool
) -> None:
    names = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
    class_name = {"tokenizer_class": "PreTrainedTokenizerFast"} if generic else {}
    for name, content in zip(names, ({**class_name, **config}, special, added), strict=True):
        (folder / name).write_text(json.dumps(content))
    try:
        tokenizer = load_tokenizer(resolve_preset(str(folder), load_weights=False))
    except PresetError:
        return
    if not isinstance(tokenizer, NoTokenizer):
        tokenizer.encode(["a [E1]", ("[CLS]", "b")], max_length=8, truncation=Truncation.LEFT)


def test_an_empty_vocabulary_leaves_ids_only(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_bytes(b"")
    assert "the piece for unknown words, [UNK]" in reason(folder)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]"])
def test_malformed_files_are_rejected(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    assert "tokenizer.json: must" in rejection(folder)


@pytest.mark.parametrize("skip_special", [True, False])
def test_ids_become_the_text_of_the_saved_tokenizer(tmp_path: Path, skip_special: bool) -> None:
    pieces = [*SPECIAL_TOKENS.values(), "hello", "##s", ",", "do", "n", "'", "t"]
    config = BertConfig({piece: id_ for id_, piece in enumerate(pieces)}, special_pieces(SPECIAL_TOKENS))
    write_bert_files(config, tmp_path, max_length=512)
    saved = Pipeline.from_file(str(tmp_path / "tokenizer.json"))
    pipeline = make_bert_pipeline(config)
    tokenizer = TransformersTokenizer(pipeline, make_bert_template(config, pipeline))
    ids = [2, 5, 6, 7, 8, 9, 10, 11, 4, 1, 999, 3]
    text = tokenizer.decode(ids, skip_special=skip_special)
    assert text == saved.decode(ids, skip_special_tokens=skip_special)
    assert text.replace("[CLS] ", "").startswith("hellos, do")
    assert ("[SEP]" in text) is not skip_special
    assert (tokenizer.piece(2), tokenizer.piece(999)) == ("[CLS]", "")
