"""BERT's pipeline on the vocabulary of a checkpoint, as transformers 5 rebuilds it, and its files.

    text ── added pieces ── clean, lower, strip accents, part CJK ── split on space and punctuation ── WordPiece
            stay whole      (BertNormalizer)                         (BertPreTokenizer)

Pieces come from tokenizer.json, or from vocab.txt if there is none; settings from tokenizer_config.json, whatever the
normalizer in tokenizer.json says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tokenizers import AddedToken
from tokenizers import Tokenizer as Pipeline
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from electra_serve.errors import PresetError
from electra_serve.presets.config import LIMITS
from electra_serve.presets.folder import TOKENIZER_FILE
from electra_serve.presets.tokenizers.added_pieces import AddedPieces, add_pieces, collect_added_pieces
from electra_serve.presets.tokenizers.pairs import Template
from electra_serve.presets.tokenizers.tokenizer_classes import UnsupportedTokenizer
from electra_serve.presets.tokenizers.transformers import BuiltPipeline
from electra_serve.presets.tokenizers.transformers_files import CheckpointFiles, read_vocabulary
from electra_serve.presets.transformers_checkpoint import SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE, VOCAB_FILE

# Roles, and the pieces that have them unless the files say otherwise
SPECIAL_TOKENS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
)

# Names in tokenizer_config.json: ours, and the values they may have, the default first
SETTINGS: Final[Mapping[str, tuple[str, tuple[object, ...]]]] = MappingProxyType(
    {
        "do_lower_case": ("lowercase", (True, False)),
        "strip_accents": ("strip_accents", (None, True, False)),
        "tokenize_chinese_chars": ("split_on_cjk", (True, False)),
    }
)

# The parts of tokenizer.json that are taken: on any other, versions 4 and 5 of transformers disagree
SERIALIZED: Final[tuple[tuple[str, str, object], ...]] = (
    ("model", "type", "WordPiece"),
    ("model", "continuing_subword_prefix", "##"),
    ("model", "max_input_chars_per_word", 100),
    ("normalizer", "type", "BertNormalizer"),
    ("pre_tokenizer", "type", "BertPreTokenizer"),
)


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Content of the files that decides the ids.

    Attributes:
        vocabulary: The id of each piece.
        added: Pieces that stay whole; the vocabulary may have them or not.
        lowercase: Lower-case all letters.
        strip_accents: Drop combining marks; None: if `lowercase`.
        split_on_cjk: Make each CJK ideograph a word.
    """

    vocabulary: Mapping[str, int]
    added: AddedPieces
    lowercase: bool = True
    strip_accents: bool | None = None
    split_on_cjk: bool = True

    def role(self, name: str) -> str:
        """The piece that has the role `name`, such as `cls_token`; raises `UnsupportedTokenizer`."""
        piece = self.added.role(name)
        if piece is None:
            raise UnsupportedTokenizer(f"{name} must be a text; it is null")
        return piece


def read_bert_config(files: CheckpointFiles) -> BertConfig:
    """Reads a checkpoint's vocabulary, pieces and settings.

    Raises:
        PresetError: A file is unreadable or malformed.
        UnsupportedTokenizer: They ask for what this pipeline does not do.
    """
    _check_serialized(files.pieces.serialized or {})
    return BertConfig(
        vocabulary=_vocabulary(files.folder, files.pieces.serialized),
        added=collect_added_pieces(files.pieces, SPECIAL_TOKENS),
        **_settings(files.settings),
    )


def build_bert_pipeline(files: CheckpointFiles) -> BuiltPipeline:
    """Builds the pipeline of a checkpoint.

    Raises:
        PresetError: A file is unreadable or malformed.
        UnsupportedTokenizer: They ask for what this pipeline does not do.
    """
    config = read_bert_config(files)
    pipeline = make_bert_pipeline(config)
    return BuiltPipeline(
        pipeline,
        make_bert_template(config, pipeline),
        files.serialized_side,
        lowercase=config.lowercase,
        splits_at_spaces=_splits_at_spaces(pipeline),
    )


def make_bert_pipeline(config: BertConfig) -> Pipeline:
    """The pipeline without the template; raises `UnsupportedTokenizer`."""
    unknown = config.role("unk_token")
    if unknown not in config.vocabulary:
        raise UnsupportedTokenizer(f"the vocabulary must have the piece for unknown words, {unknown}; it has not")
    pipeline = Pipeline(WordPiece(dict(config.vocabulary), unk_token=unknown))
    pipeline.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.split_on_cjk,
        strip_accents=config.strip_accents,
        lowercase=config.lowercase,
    )
    pipeline.pre_tokenizer = BertPreTokenizer()
    pipeline.decoder = WordPieceDecoder(prefix="##")
    add_pieces(pipeline, config.added)
    return pipeline


def make_bert_template(config: BertConfig, pipeline: Pipeline) -> Template:
    """`[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, with the pieces that have these roles.

    Raises:
        UnsupportedTokenizer: A piece is one that transformers cannot put into a template.
    """
    return Template.bert(*(_template_id(config.role(name), pipeline) for name in ("cls_token", "sep_token")))


def _template_id(piece: str, pipeline: Pipeline) -> int:
    id_ = pipeline.token_to_id(piece)
    if id_ is None or set(piece) & set(":$") or len(piece.split()) != 1:
        raise UnsupportedTokenizer(f"cls_token and sep_token must have no space, colon or dollar; one is {piece!r:.40}")
    return id_


def _splits_at_spaces(pipeline: Pipeline) -> bool:
    """Checks that no added piece reaches over white space, which normalization puts around ideographs."""
    for piece in pipeline.get_added_tokens_decoder().values():
        forms = piece.content, pipeline.normalizer.normalize_str(piece.content)
        if any(char.isspace() for form in forms for char in form):
            return False
    return True


def write_bert_files(config: BertConfig, folder: Path, max_length: int) -> None:
    """Writes the four files that transformers saves for an ELECTRA tokenizer."""
    pieces = sorted(config.vocabulary, key=config.vocabulary.__getitem__)
    (folder / VOCAB_FILE).write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    special = {role: config.role(role) for role in SPECIAL_TOKENS}
    settings = {name: getattr(config, ours) for name, (ours, _) in SETTINGS.items()}
    _write_json(folder / SPECIAL_TOKENS_FILE, special)
    _write_json(
        folder / TOKENIZER_CONFIG_FILE,
        {"tokenizer_class": "ElectraTokenizer", "model_max_length": max_length, **settings, **special},
    )
    pipeline = make_bert_pipeline(config)
    cls, sep = special["cls_token"], special["sep_token"]
    pipeline.post_processor = TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, config.vocabulary[cls]), (sep, config.vocabulary[sep])],
    )
    pipeline.save(str(folder / TOKENIZER_FILE))


def special_pieces(roles: Mapping[str, str]) -> AddedPieces:
    """Pieces that have these roles and are not normalized, as those of BERT's vocabularies."""
    return AddedPieces({}, {role: AddedToken(piece, normalized=False, special=True) for role, piece in roles.items()})


def _check_serialized(serialized: Mapping[str, Any]) -> None:
    for part, name, valid in SERIALIZED:
        section = serialized.get(part) or {}
        found = section.get(name, valid) if isinstance(section, dict) else section
        if found != valid:
            raise UnsupportedTokenizer(
                f"{TOKENIZER_FILE} of a BERT tokenizer must have {part} with {name} {valid!r}; it is {found!r:.40}"
            )


def _vocabulary(folder: Path, serialized: Mapping[str, Any] | None) -> dict[str, int]:
    if serialized is None:
        return read_vocabulary(folder / VOCAB_FILE)
    model = serialized.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    well_formed = (
        isinstance(vocabulary, dict)
        and all(type(id_) is int and 0 <= id_ < LIMITS["vocab_size"] for id_ in vocabulary.values())
        and not any("\ud800" <= char <= "\udfff" for char in "".join(vocabulary))
    )
    if not well_formed or not vocabulary:
        raise PresetError(
            f"{folder / TOKENIZER_FILE}: model.vocab must map texts to ids from 0 to {LIMITS['vocab_size'] - 1}; "
            "it does not"
        )
    return dict(vocabulary)


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    settings = {}
    for name, (ours, valid) in SETTINGS.items():
        value = given.get(name, valid[0])
        if not any(value is allowed for allowed in valid):
            raise PresetError(f"{TOKENIZER_CONFIG_FILE}: {name} must be one of {valid}; it is {value!r:.40}")
        settings[ours] = value
    return settings


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
