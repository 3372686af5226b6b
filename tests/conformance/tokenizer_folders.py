"""Tokenizer folders as transformers 3, 4 and 5 leave them, for the comparison with `AutoTokenizer`.

A folder is a base vocabulary with some files in some version's form, under some class name, with some flags. Each says
whether its ids must be reproduced: a folder that is merely rejected would otherwise pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.conformance.transformers_text import sentences
from tests.data.reader import VOCABULARY

SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROLES: Final = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
SHAPE: Final = {
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": 4,
    "embedding_size": 4,
    "intermediate_size": 4,
}
CONFIG: Final = "tokenizer_config.json"
SPECIALS: Final = "special_tokens_map.json"
SPARE_ROWS: Final = 40
"""Rows of the model beyond the base vocabulary, for added pieces."""

Files = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Folder:
    """One tokenizer folder.

    Attributes:
        name: What is special about it.
        files: The content of each file: JSON, or text.
        served: True if the service must return ids for it.
        model: Fields of config.json in addition to the architecture.
    """

    name: str
    files: Files
    served: bool = True
    model: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """Writes it, with a config.json."""
        path.mkdir(parents=True)
        config = {"model_type": "electra", "vocab_size": len(pieces()) + SPARE_ROWS, **SHAPE, **self.model}
        for name, content in {"config.json": config, **self.files}.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (path / name).write_bytes(text.encode())
        return path


@cache
def pieces() -> tuple[str, ...]:
    """The vocabulary of the golden files."""
    return tuple(VOCABULARY.read_text(encoding="utf-8").splitlines())


def folders() -> list[Folder]:
    """All of them, each under its own name."""
    found = [
        *_by_class(),
        *_by_files(),
        *_by_flags(),
        *_with_added_pieces(),
        *_with_oddities(),
        *_serialized(),
        *_of_other_classes(),
    ]
    assert len({folder.name for folder in found}) == len(found)
    return found


def vocabulary_text(listed: Sequence[str] | None = None, end: str = "\n") -> str:
    """Pieces as vocab.txt has them; by default the whole vocabulary."""
    return "".join(f"{piece}{end}" for piece in listed or pieces())


def bert_serialized(*, lowercase: bool = True, **normalizer: Any) -> dict[str, Any]:
    """tokenizer.json as `ElectraTokenizerFast` writes it."""
    ids = {piece: id_ for id_, piece in enumerate(pieces())}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase, **normalizer)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    made.add_special_tokens(list(SPECIAL))
    return _content(made)


def _content(made: Tokenizer) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(made.to_str())
    return content


def token(content: str, *, marked: bool = False, **flags: bool) -> dict[str, Any]:
    """A piece as an object, as tokenizer_config.json of transformers 4 (`marked`) or special_tokens_map.json has it."""
    entry = {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, **flags}
    return {"__type": "AddedToken", **entry} if marked else entry


def _by_class() -> Iterator[Folder]:
    names = ("ElectraTokenizer", "ElectraTokenizerFast", "BertTokenizer", "BertTokenizerFast", "MobileBertTokenizer")
    for name in names:
        for lowercase in (True, False):
            config = {"tokenizer_class": name, "do_lower_case": lowercase}
            yield Folder(f"{name}, vocab.txt, lowercase {lowercase}", {"vocab.txt": vocabulary_text(), CONFIG: config})
            serialized = bert_serialized(lowercase=not lowercase)
            yield Folder(
                f"{name}, tokenizer.json, lowercase {lowercase}", {"tokenizer.json": serialized, CONFIG: config}
            )
    for name in ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer"):
        class_name = {"tokenizer_class": name}
        for lowercase in (True, False):
            serialized = bert_serialized(lowercase=lowercase)
            yield Folder(f"{name}, lowercase {lowercase}", {"tokenizer.json": serialized, CONFIG: class_name})
        yield Folder(f"{name}, vocab.txt alone", {"vocab.txt": vocabulary_text(), CONFIG: class_name}, served=False)
    yield Folder(
        "class in config.json", {"vocab.txt": vocabulary_text()}, model={"tokenizer_class": "BertTokenizerFast"}
    )
    both = {"tokenizer.json": bert_serialized(lowercase=False), CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}}
    yield Folder("tokenizer_config.json wins over config.json", both, model={"tokenizer_class": "BertTokenizer"})
    generic = {"tokenizer.json": bert_serialized(lowercase=False), CONFIG: {"do_lower_case": True}}
    yield Folder("generic in config.json", generic, model={"tokenizer_class": "PreTrainedTokenizerFast"})


def _by_files() -> Iterator[Folder]:
    yield Folder("vocab.txt alone", {"vocab.txt": vocabulary_text()})
    yield Folder("tokenizer.json alone", {"tokenizer.json": bert_serialized()})
    yield Folder("tokenizer.json alone, cased", {"tokenizer.json": bert_serialized(lowercase=False)})
    yield Folder(
        "both vocabularies", {"tokenizer.json": bert_serialized(), "vocab.txt": vocabulary_text(pieces()[:500])}
    )
    yield Folder("vocab.txt with a blank last line", {"vocab.txt": vocabulary_text() + "\n"})
    yield Folder("vocab.txt with two blank last lines", {"vocab.txt": vocabulary_text() + "\n\n"})
    yield Folder("vocab.txt without a last line end", {"vocab.txt": vocabulary_text().rstrip("\n")})
    yield Folder("vocab.txt with CRLF", {"vocab.txt": vocabulary_text(end="\r\n")})
    yield Folder("vocab.txt with trailing white space", {"vocab.txt": vocabulary_text(end=" \u3000\n")})
    yield Folder("vocab.txt with a piece twice", {"vocab.txt": vocabulary_text([*pieces(), "rabbit"])})
    yield Folder("vocab.txt without [MASK]", {"vocab.txt": vocabulary_text([p for p in pieces() if p != "[MASK]"])})
    yield Folder(
        "vocab.txt without [UNK]", {"vocab.txt": vocabulary_text([p for p in pieces() if p != "[UNK]"])}, served=False
    )
    sentence = {"max_seq_length": 9, "do_lower_case": False}
    yield Folder("sentence_bert_config.json", {"vocab.txt": vocabulary_text(), "sentence_bert_config.json": sentence})


def _by_flags() -> Iterator[Folder]:
    flags: list[dict[str, Any]] = [
        {"strip_accents": False},
        {"strip_accents": True, "do_lower_case": False},
        {"strip_accents": None},
        {"tokenize_chinese_chars": False},
        {"tokenize_chinese_chars": False, "do_lower_case": False, "strip_accents": True},
        {"split_special_tokens": True},
        {"truncation_side": "left"},
        {"model_max_length": 8},
        {"max_len": 8},
        {"model_max_length": 10**30},
        {"model_input_names": ["input_ids", "attention_mask"]},
        {"do_basic_tokenize": True, "never_split": None, "name_or_path": "x/y", "special_tokens_map_file": None},
    ]
    for changes in flags:
        for kind, files in (
            ("vocab.txt", {"vocab.txt": vocabulary_text()}),
            ("tokenizer.json", {"tokenizer.json": bert_serialized()}),
        ):
            config = {"tokenizer_class": "ElectraTokenizer", **changes}
            yield Folder(f"{kind}, {json.dumps(changes)}", {**files, CONFIG: config})
    for changes in flags[5:]:
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **changes}
        yield Folder(
            f"generic, {json.dumps(changes)}", {"tokenizer.json": bert_serialized(lowercase=False), CONFIG: config}
        )


def _with_added_pieces() -> Iterator[Folder]:
    """Folders as three versions save them, of a tokenizer to which "[E1]", "[/E1]" and "covid" were added."""
    size = len(pieces())
    added = {"[E1]": size, "[/E1]": size + 1, "covid": size + 2}
    special_map: dict[str, Any] = {**ROLES, "additional_special_tokens": ["[E1]", "[/E1]"]}
    as_objects = {role: token(piece) for role, piece in ROLES.items()}
    decoder = {
        **{str(pieces().index(piece)): token(piece, special=True) for piece in SPECIAL},
        str(size): token("[E1]", special=True),
        str(size + 1): token("[/E1]", special=True),
        str(size + 2): token("covid", special=False, normalized=True),
    }
    serialized = bert_serialized()
    serialized["added_tokens"] += [{"id": int(id_), **token} for id_, token in decoder.items() if int(id_) >= size]
    slow: Files = {"vocab.txt": vocabulary_text(), "added_tokens.json": added}
    saved: dict[str, Files] = {
        "3, added_tokens.json": {**slow, CONFIG: {"do_lower_case": True}},
        "3, special_tokens_map.json": {**slow, SPECIALS: special_map, CONFIG: {}},
        "3, cased": {**slow, SPECIALS: special_map, CONFIG: {"do_lower_case": False}},
        "4.0, slow": {
            **slow,
            SPECIALS: {**as_objects, "additional_special_tokens": ["[E1]", "[/E1]"]},
            CONFIG: {"tokenizer_class": "ElectraTokenizer", "additional_special_tokens": ["[E1]", "[/E1]"]},
        },
        "4.0, objects": {
            "vocab.txt": vocabulary_text(),
            SPECIALS: as_objects,
            CONFIG: {role: token(piece, marked=True, special=True) for role, piece in ROLES.items()},
        },
        "4.0, fast": {
            **slow,
            "tokenizer.json": serialized,
            SPECIALS: special_map,
            CONFIG: {"tokenizer_class": "ElectraTokenizerFast"},
        },
        "4.40, slow": {
            **slow,
            SPECIALS: special_map,
            CONFIG: {"added_tokens_decoder": decoder, "additional_special_tokens": ["[E1]", "[/E1]"], **ROLES},
        },
        "4.40, fast": {
            "tokenizer.json": serialized,
            SPECIALS: special_map,
            CONFIG: {"added_tokens_decoder": decoder, "tokenizer_class": "ElectraTokenizerFast", **ROLES},
        },
        "5": {
            "tokenizer.json": serialized,
            CONFIG: {"extra_special_tokens": ["[E1]", "[/E1]"], "backend": "tokenizers", **ROLES},
        },
        "5, named": {
            "tokenizer.json": bert_serialized(),
            CONFIG: {"extra_special_tokens": {"entity_token": "[E1]", "end": "[/E1]"}},
        },
    }
    for version, files in saved.items():
        yield Folder(f"saved by {version}", files)
        if "tokenizer.json" in files:
            generic = {**files, CONFIG: {**files[CONFIG], "tokenizer_class": "PreTrainedTokenizerFast"}}
            yield Folder(f"saved by {version}, generic", generic)


def _with_oddities() -> Iterator[Folder]:
    """Pieces under unusual keys, with unusual flags, or in files that disagree."""
    size = len(pieces())

    def folder(name: str, config: Mapping[str, Any], *, served: bool = True, **files: Any) -> Folder:
        named = {f"{file}.json": content for file, content in files.items()}
        return Folder(name, {"vocab.txt": vocabulary_text(), CONFIG: config, **named}, served)

    for flag in ("lstrip", "rstrip", "single_word", "normalized"):
        flagged = {"added_tokens_decoder": {str(size): token("[E1]", **{flag: True}, special=flag != "normalized")}}
        yield folder(f"added piece with {flag}", flagged)
    yield folder("additional pieces in tokenizer_config.json", {"additional_special_tokens": ["[E1]", "[/E1]"]})
    yield folder("additional pieces as objects", {"additional_special_tokens": [token("[E1]", marked=True)]})
    yield folder("additional pieces as plain objects", {"additional_special_tokens": [token("[E1]")]}, served=False)
    yield folder(
        "both names of additional pieces", {"additional_special_tokens": ["[E1]"], "extra_special_tokens": ["[/E1]"]}
    )
    yield folder("bos and eos", {"bos_token": "[E1]", "eos_token": "[/E1]"})
    yield folder("a role of its own", {"entity_token": "[E1]"})
    yield folder("a role of its own, as an object", {"entity_token": token("[E1]", marked=True, lstrip=True)})
    open_flag = {"__type": "AddedToken", "content": "[E1]", "lstrip": True}
    yield folder(
        "a piece that leaves a flag open", {"entity_token": open_flag, "mask_token": {**open_flag, "content": "[MASK]"}}
    )
    yield folder(
        "special map says special twice",
        {},
        special_tokens_map={"extra_special_tokens": [token("[E1]", special=True)]},
        served=False,
    )
    yield folder("no mask", {"mask_token": None})
    yield folder("no cls", {"cls_token": None}, served=False)
    yield folder("cls as a plain object", {"cls_token": token("[CLS]")}, served=False)
    yield folder("other cls and sep", {"cls_token": "<s>", "sep_token": "</s>"})
    yield folder("sep with a space", {"sep_token": "the end"}, served=False)
    yield folder(
        "special map wins",
        {"additional_special_tokens": ["[E1]"]},
        special_tokens_map={"additional_special_tokens": ["[/E1]"]},
    )
    yield folder(
        "special map has lists of objects",
        {},
        special_tokens_map={"additional_special_tokens": [token("[E1]")]},
        served=False,
    )
    yield folder(
        "special map has extra pieces",
        {"extra_special_tokens": ["[E1]"]},
        special_tokens_map={"extra_special_tokens": [token("[/E1]"), "[E1]"]},
    )
    yield folder(
        "special map has named pieces", {}, special_tokens_map={"extra_special_tokens": {"entity_token": "[E1]"}}
    )
    yield folder(
        "special map is ignored",
        {"added_tokens_decoder": {str(size): token("[E1]")}},
        special_tokens_map={"cls_token": "[E1]"},
    )
    yield folder("special map has another cls", {}, special_tokens_map={"cls_token": token("[SEP]", lstrip=True)})
    yield folder("added piece that the vocabulary has", {}, added_tokens={"rabbit": pieces().index("rabbit")})
    yield folder("added pieces with spaces", {"extra_special_tokens": ["the white rabbit", "a\tb", "\u65e5\u672c"]})
    yield folder("added pieces in another order", {}, added_tokens={"[/E1]": size + 1, "[E1]": size})
    yield folder("added piece with a gap", {}, added_tokens={"[E1]": size + 5}, served=False)
    yield folder("added piece beyond the model", {}, added_tokens={f"[{i}]": size + i for i in range(SPARE_ROWS + 5)})
    yield folder("versioned tokenizer files", {"fast_tokenizer_files": ["tokenizer.4.0.json"]}, served=False)
    yield folder("init inputs", {"init_inputs": []})
    yield folder("vocabulary in the settings", {"vocab": {"[UNK]": 0}}, served=False)


def _of_other_classes() -> Iterator[Folder]:
    vocabulary = {"vocab.txt": vocabulary_text()}
    japanese = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}
    code = {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}}
    configs: dict[str, Mapping[str, Any]] = {
        "BertJapaneseTokenizer": japanese,
        "ElectraSudachipyTokenizer": {"tokenizer_class": "ElectraSudachipyTokenizer"},
        "XLMRobertaTokenizer": {"tokenizer_class": "XLMRobertaTokenizer"},
        "DistilBertTokenizer": {"tokenizer_class": "DistilBertTokenizer"},
        "auto_map": code,
        "auto_map and a known class": {**code, "tokenizer_class": "ElectraTokenizer"},
        "auto_map as a list": {"auto_map": ["tokenization_x.X", None]},
    }
    for name, config in configs.items():
        yield Folder(name, {**vocabulary, CONFIG: config}, served=False)
        yield Folder(f"{name}, tokenizer.json", {"tokenizer.json": bert_serialized(), CONFIG: config}, served=False)
    yield Folder("auto_map of another kind", {**vocabulary, CONFIG: {"auto_map": {"AutoProcessor": "x.Y"}}})
    yield Folder("other class in config.json", vocabulary, False, {"tokenizer_class": "BertJapaneseTokenizer"})


def _serialized() -> Iterator[Folder]:
    """Pipelines of every kind, under a generic class."""
    for name, make in PIPELINES.items():
        yield _generic(name, make())
    cut = bert_serialized(lowercase=False)
    cut["truncation"] = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None}
    cut["padding"] = {**padding, "pad_id": 0, "pad_type_id": 0, "pad_token": "[E1]"}
    yield _generic("own truncation and padding", cut)
    yield Folder("own truncation of a BERT tokenizer", {"tokenizer.json": cut, CONFIG: {}})
    yield _generic("no post-processor", {**bert_serialized(), "post_processor": None})
    marked = bert_serialized(lowercase=False)
    marked["added_tokens"].append({"id": len(pieces()), **token("[E1]", special=False)})
    split = {"split_special_tokens": True, "entity_token": "[E1]"}
    yield _generic("a plain piece that has a role", marked, split)
    yield _generic(
        "extra pieces", bert_serialized(lowercase=False), {"extra_special_tokens": ["[E1]", "[/E1]"], **ROLES}
    )
    yield _generic("bos and eos", bert_serialized(lowercase=False), {"add_bos_token": True, "bos_token": "[CLS]"})
    yield _generic("unknown piece missing", _without(bert_serialized(), "unk_token", "<unk>"), served=False)
    yield _generic("long words", _without(bert_serialized(), "max_input_chars_per_word", 10**6), served=False)
    yield _generic("short words", _without(bert_serialized(), "max_input_chars_per_word", 5))
    yield _generic("other prefix", _without(bert_serialized(), "continuing_subword_prefix", "@@"))
    dropout = _byte_level()
    dropout["model"]["dropout"] = 0.5
    yield _generic("BPE with dropout", dropout, served=False)
    twice = bert_serialized()
    twice["post_processor"]["single"] *= 2
    yield _generic("text put in twice", twice, served=False)
    electra = {"tokenizer_class": "ElectraTokenizerFast"}
    for name in ("BPE", "Unigram"):
        yield Folder(
            f"{name} of a BERT tokenizer", {"tokenizer.json": PIPELINES[name](), CONFIG: electra}, served=False
        )


def _generic(name: str, serialized: Files, config: Files | None = None, *, served: bool = True) -> Folder:
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **(config or {})}
    return Folder(f"pipeline: {name}", {"tokenizer.json": serialized, CONFIG: settings}, served)


def _without(serialized: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    return {**serialized, "model": {**serialized["model"], key: value}}


@cache
def _corpus() -> tuple[str, ...]:
    return tuple(sentences()[:1500])


def _trained(made: Tokenizer, trainer: Any, **parts: Any) -> dict[str, Any]:
    for name, part in parts.items():
        setattr(made, name, part)
    made.train_from_iterator(_corpus(), trainer)
    return _content(made)


def _byte_level() -> dict[str, Any]:
    return _trained(
        Tokenizer(models.BPE()),
        trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
        post_processor=processors.RobertaProcessing(("</s>", 1), ("<s>", 0)),
    )


def _bpe() -> dict[str, Any]:
    return _trained(
        Tokenizer(models.BPE(unk_token="[UNK]")),
        trainers.BpeTrainer(vocab_size=700, special_tokens=list(SPECIAL), show_progress=False),
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
        pre_tokenizer=pre_tokenizers.Whitespace(),
        post_processor=processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    )


def _unigram() -> dict[str, Any]:
    return _trained(
        Tokenizer(models.Unigram()),
        trainers.UnigramTrainer(vocab_size=700, special_tokens=list(SPECIAL), unk_token="[UNK]", show_progress=False),
        normalizer=normalizers.Sequence([normalizers.Replace("\n", " "), normalizers.NFKC()]),
        pre_tokenizer=pre_tokenizers.Metaspace(),
        post_processor=processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        ),
    )


def _word_level() -> dict[str, Any]:
    return _trained(
        Tokenizer(models.WordLevel(unk_token="[UNK]")),
        trainers.WordLevelTrainer(vocab_size=900, special_tokens=list(SPECIAL), show_progress=False),
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]),
        post_processor=processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=True),
                processors.TemplateProcessing(
                    single="$A:1 [SEP]:1", pair="$B:1 [SEP] $A:0", special_tokens=[("[SEP]", 3)]
                ),
            ]
        ),
    )


def _flagged() -> dict[str, Any]:
    """WordPiece with pieces of every flag, and one that the vocabulary has."""
    made = Tokenizer.from_str(json.dumps(bert_serialized()))
    made.add_tokens([AddedToken("covid", lstrip=True), AddedToken("[E1]", rstrip=True, normalized=False), "rabbit"])
    made.add_tokens([AddedToken("alice", single_word=True)])
    return _content(made)


PIPELINES: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "byte-level BPE": _byte_level,
    "BPE": _bpe,
    "Unigram": _unigram,
    "WordLevel": _word_level,
    "added pieces with flags": _flagged,
    "no accents kept": lambda: bert_serialized(lowercase=False, strip_accents=True),
    "ideographs kept": lambda: bert_serialized(lowercase=True, strip_accents=False, handle_chinese_chars=False),
}
