"""Reads and writes transformers' tokenizer files.

What decides is what decides in transformers 5: pieces come from tokenizer.json, or vocab.txt where there is none;
settings from tokenizer_config.json, whatever the normalizer in tokenizer.json says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, Final

from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.processors import TemplateProcessing

from electra_serve.errors import PresetError
from electra_serve.presets.config import LIMITS
from electra_serve.presets.files import read_json, read_lines
from electra_serve.presets.folder import TOKENIZER_FILE
from electra_serve.presets.tokenizers.transformers import AddedPiece, TransformersTokenizerConfig, build_pipeline
from electra_serve.presets.transformers_checkpoint import SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE, VOCAB_FILE

MAX_TOKENIZER_BYTES: Final = 64 * 2**20
SPECIAL_TOKENS: Final[Mapping[str, str]] = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""Roles, and the pieces that have them unless the files say otherwise."""

SETTINGS: Final[Mapping[str, tuple[str, tuple[object, ...]]]] = {
    "do_lower_case": ("lowercase", (True, False)),
    "strip_accents": ("strip_accents", (None, True, False)),
    "tokenize_chinese_chars": ("split_on_cjk", (True, False)),
    "split_special_tokens": ("split_special_tokens", (False, True)),
}
"""Names in tokenizer_config.json: ours, and the values they may have, the default first."""

PIPELINE: Final[tuple[tuple[str, str, object], ...]] = (
    ("model", "type", "WordPiece"),
    ("model", "continuing_subword_prefix", "##"),
    ("model", "max_input_chars_per_word", 100),
    ("normalizer", "type", "BertNormalizer"),
    ("pre_tokenizer", "type", "BertPreTokenizer"),
)
"""What tokenizer.json must be made of: with anything else it is not ELECTRA's."""


def read_transformers_tokenizer(folder: Path) -> TransformersTokenizerConfig:
    """Reads the tokenizer of a transformers checkpoint.

    Raises:
        PresetError: Its files are unreadable, or ask for what this tokenizer does not do.
    """
    stored = _read_tokenizer_json(folder / TOKENIZER_FILE)
    given = {**_optional(folder / SPECIAL_TOKENS_FILE), **_optional(folder / TOKENIZER_CONFIG_FILE)}
    vocabulary = _vocabulary(folder, stored)
    tokens = {role: _content(given.get(role, piece), role) for role, piece in SPECIAL_TOKENS.items()}
    return TransformersTokenizerConfig(
        vocabulary=vocabulary,
        added=_added(stored, given, vocabulary, tokens.values()),
        cls_token=tokens["cls_token"],
        sep_token=tokens["sep_token"],
        unk_token=tokens["unk_token"],
        **_settings(given),
    )


def write_transformers_tokenizer(config: TransformersTokenizerConfig, folder: Path, max_length: int) -> None:
    """Writes the four files that transformers saves for an ELECTRA tokenizer.

    Args:
        config: The tokenizer; its ids are 0, 1, 2, ….
        folder: Where to.
        max_length: Longest sequence of the model.
    """
    pieces = sorted(config.vocabulary, key=config.vocabulary.__getitem__)
    (folder / VOCAB_FILE).write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    special = {**SPECIAL_TOKENS, **{role: getattr(config, role) for role in ("cls_token", "sep_token", "unk_token")}}
    settings = {name: getattr(config, ours) for name, (ours, _) in SETTINGS.items()}
    _write_json(folder / SPECIAL_TOKENS_FILE, special)
    _write_json(
        folder / TOKENIZER_CONFIG_FILE,
        {"tokenizer_class": "ElectraTokenizer", "model_max_length": max_length, **settings, **special},
    )
    pipeline = build_pipeline(config)
    pipeline.decoder = WordPieceDecoder(prefix="##")
    cls, sep = config.cls_token, config.sep_token
    pipeline.post_processor = TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, config.vocabulary[cls]), (sep, config.vocabulary[sep])],
    )
    pipeline.save(str(folder / TOKENIZER_FILE))


def _read_tokenizer_json(path: Path) -> Mapping[str, Any]:
    stored = _optional(path)
    for part, name, valid in PIPELINE:
        section = stored.get(part) or {}
        found = section.get(name, valid) if isinstance(section, dict) else section
        if found != valid:
            raise PresetError(f"{path}: {part} must have {name} {valid!r}; it is {found!r:.40}")
    return stored


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path, max_bytes=MAX_TOKENIZER_BYTES) if path.is_file() else {}


def _vocabulary(folder: Path, stored: Mapping[str, Any]) -> dict[str, int]:
    if not stored:
        lines = read_lines(folder / VOCAB_FILE, max_bytes=MAX_TOKENIZER_BYTES)
        return {piece: id_ for id_, piece in enumerate(lines)}
    vocabulary = stored["model"].get("vocab") if isinstance(stored.get("model"), dict) else None
    if (
        not isinstance(vocabulary, dict)
        or not all(map(_is_id, vocabulary.values()))
        or not _is_piece("".join(vocabulary))
    ):
        raise PresetError(
            f"{folder / TOKENIZER_FILE}: model.vocab must map texts to ids from 0 to {LIMITS['vocab_size'] - 1}; "
            "it does not"
        )
    return vocabulary


def _added(
    stored: Mapping[str, Any], given: Mapping[str, Any], vocabulary: Mapping[str, int], special: Iterable[str]
) -> dict[int, AddedPiece]:
    """Pieces that stay whole: the special ones, and those that either file lists. tokenizer_config.json wins."""
    listed, decoder = stored.get("added_tokens") or [], given.get("added_tokens_decoder") or {}
    if not isinstance(listed, list) or not isinstance(decoder, dict):
        raise PresetError("added_tokens must be a list and added_tokens_decoder an object; they are not")
    added = {vocabulary[piece]: AddedPiece(piece) for piece in special if piece in vocabulary}
    entries = ((entry.get("id") if isinstance(entry, dict) else None, entry) for entry in listed)
    by_text = ((int(id_) if id_.isascii() and id_.isdigit() else None, entry) for id_, entry in decoder.items())
    for id_, entry in chain(entries, by_text):
        if id_ is None or not _is_id(id_) or not isinstance(entry, dict):
            raise PresetError(f"an added piece must be an object with an id below {LIMITS['vocab_size']}; one is not")
        added[id_] = _added_piece(entry)
    return added


def _added_piece(entry: Mapping[str, Any]) -> AddedPiece:
    known = {field.name: entry[field.name] for field in fields(AddedPiece) if field.name in entry}
    flags = [value for name, value in known.items() if name != "content"]
    if not _is_piece(known.get("content")) or not all(isinstance(flag, bool) for flag in flags):
        raise PresetError("an added piece must have a text as content, and true or false as flags; one has not")
    return AddedPiece(**{"special": False, **known})


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    settings = {}
    for name, (ours, valid) in SETTINGS.items():
        value = given.get(name, valid[0])
        if not any(value is allowed for allowed in valid):
            raise PresetError(f"{TOKENIZER_CONFIG_FILE}: {name} must be one of {valid}; it is {value!r:.40}")
        settings[ours] = value
    return settings


def _content(token: object, role: str) -> str:
    """The text of a piece that is given as text or as an object."""
    content = token.get("content") if isinstance(token, dict) else token
    if not _is_piece(content):
        raise PresetError(f"{role} must be a text, or an object with a text as content; it is {token!r:.40}")
    return str(content)


def _is_piece(value: object) -> bool:
    """Whether it is a text, not empty, and whole characters: JSON can hold half a surrogate pair, UTF-8 cannot."""
    return isinstance(value, str) and bool(value) and not any("\ud800" <= char <= "\udfff" for char in value)


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value < LIMITS["vocab_size"]


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
