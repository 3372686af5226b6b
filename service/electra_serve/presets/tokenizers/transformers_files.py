"""Reads the tokenizer files of a transformers checkpoint, and what they say of its sequences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from electra_serve.errors import PresetError
from electra_serve.presets.files import read_json
from electra_serve.presets.folder import CONFIG_FILE, TOKENIZER_FILE
from electra_serve.presets.tokenizers.added_pieces import PieceFiles
from electra_serve.presets.tokenizers.pairs import Side
from electra_serve.presets.tokenizers.tokenizer_classes import (
    TokenizerClass,
    UnsupportedTokenizer,
    resolve_tokenizer_class,
)
from electra_serve.presets.transformers_checkpoint import (
    ADDED_TOKENS_FILE,
    SENTENCE_FILE,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE,
)

MAX_TOKENIZER_BYTES: Final = 64 * 2**20
UNBOUNDED: Final = 10**20  # transformers writes 1e30 for a tokenizer that does not bound its sequences
MIN_LENGTH: Final = 3  # ids of the shortest pair: [CLS] and two [SEP]

# Keys of tokenizer_config.json that transformers takes for parts of the tokenizer itself
FOREIGN_SETTINGS: Final = (
    "_json_padding",
    "_json_truncation",
    "fast_tokenizer_files",
    "gguf_file",
    "init_inputs",
    "merges",
    "merges_file",
    "post_processor",
    "tokenizer_object",
    "tokenizer_padding",
    "tokenizer_truncation",
    "vocab",
)

# Files that transformers reads in place of vocab.txt if there is no tokenizer.json
OTHER_VOCABULARIES: Final = re.compile(r"tekken\.json|tokenizer\.model|tiktoken\.model")

# Unicode's White_Space, which Rust trims; Python's own also has U+001C to U+001F
WHITE_SPACE: Final = "".join(
    map(
        chr,
        (*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000),
    )
)


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """Settings that every tokenizer class has.

    Attributes:
        split_special_tokens: Take special pieces in a text for words.
        segments: Whether the second text of a pair has a segment of its own.
        max_length: Longest sequence; None for no bound of the tokenizer's own.
        side: The side that truncation cuts; None if the settings leave it to tokenizer.json.
    """

    split_special_tokens: bool
    segments: bool
    max_length: int | None
    side: Side | None


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The tokenizer files of a checkpoint.

    Attributes:
        folder: Their folder.
        kind: The class that they mean.
        pieces: Contents of those that name pieces.
        sentence: sentence_bert_config.json; empty if there is none.
    """

    folder: Path
    kind: TokenizerClass
    pieces: PieceFiles
    sentence: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """tokenizer_config.json."""
        return self.pieces.settings

    @property
    def serialized_side(self) -> Side:
        """The side that the truncation in tokenizer.json cuts; right if there is none."""
        truncation = (self.pieces.serialized or {}).get("truncation")
        direction = truncation.get("direction") if isinstance(truncation, dict) else None
        return "left" if direction == "Left" else "right"


def read_checkpoint_files(folder: Path) -> CheckpointFiles:
    """Reads the files and resolves the class.

    Raises:
        PresetError: A file is unreadable or malformed.
        UnsupportedTokenizer: They ask for a tokenizer that is not reproduced exactly.
    """
    settings = _optional(folder / TOKENIZER_CONFIG_FILE) or {}
    kind = resolve_tokenizer_class(settings, _optional(folder / CONFIG_FILE) or {})
    foreign = [key for key in FOREIGN_SETTINGS if settings.get(key) not in (None, [])]
    if foreign:
        raise UnsupportedTokenizer(f"{TOKENIZER_CONFIG_FILE} must not have {foreign[0]}, a part of the tokenizer")
    serialized = _optional(folder / TOKENIZER_FILE)
    if serialized is None:
        _reject_other_vocabularies(folder)
    pieces = PieceFiles(
        settings=settings,
        special=_optional(folder / SPECIAL_TOKENS_FILE),
        added=_optional(folder / ADDED_TOKENS_FILE),
        serialized=serialized,
    )
    return CheckpointFiles(folder, kind, pieces, _optional(folder / SENTENCE_FILE) or {})


def read_sequence_settings(files: CheckpointFiles, *, lowercase: bool) -> SequenceSettings:
    """Reads the settings that every class has; raises `UnsupportedTokenizer`."""
    settings = files.settings
    split, names = settings.get("split_special_tokens", False), settings.get("model_input_names")
    side = settings.get("truncation_side")
    if not isinstance(split, bool):
        raise UnsupportedTokenizer(f"split_special_tokens must be true or false; it is {split!r:.40}")
    if side not in (None, "left", "right"):
        raise UnsupportedTokenizer(f"truncation_side must be left or right; it is {side!r:.40}")
    if names is not None and not isinstance(names, list):
        raise UnsupportedTokenizer(f"model_input_names must be a list; it is {names!r:.40}")
    if files.sentence.get("do_lower_case", False) is not False and not lowercase:
        raise UnsupportedTokenizer(f"{SENTENCE_FILE} must not have do_lower_case unless the tokenizer lower-cases too")
    by_default = files.kind == "bert"
    segments = by_default if names is None else "token_type_ids" in names
    return SequenceSettings(split, segments, _max_length(files), side)


def _max_length(files: CheckpointFiles) -> int | None:
    """The bound of sentence_bert_config.json, otherwise that of tokenizer_config.json, under either of its names."""
    settings = files.settings
    found = files.sentence.get("max_seq_length")
    if found is None:
        found = settings.get("model_max_length", settings.get("max_len"))
    if found is None or (isinstance(found, int | float) and found > UNBOUNDED):
        return None
    if type(found) is not int or found < MIN_LENGTH:
        raise UnsupportedTokenizer(f"model_max_length must be an integer from {MIN_LENGTH}; it is {found!r:.40}")
    return found


def _reject_other_vocabularies(folder: Path) -> None:
    names = "\n".join(path.name for path in folder.iterdir())
    found = None if TOKENIZER_FILE in names else OTHER_VOCABULARIES.search(names)
    if found is not None:
        raise UnsupportedTokenizer(f"the vocabulary must be {TOKENIZER_FILE} or vocab.txt; it is {found.group()}")


def _optional(path: Path) -> dict[str, Any] | None:
    return read_json(path, max_bytes=MAX_TOKENIZER_BYTES) if path.is_file() else None


def read_vocabulary(path: Path) -> dict[str, int]:
    r"""Reads vocab.txt as the tokenizers library does: lines end with `\n`, and white space ends no piece.

    Raises:
        PresetError: It is too large, or not readable UTF-8.
    """
    try:
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            raise PresetError(f"{path}: at most {MAX_TOKENIZER_BYTES} bytes are read; it has more")
        lines = path.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PresetError(f"{path}: must be readable UTF-8, one piece a line; it is not") from error
    if not lines[-1]:
        lines.pop()
    return {line.rstrip(WHITE_SPACE): id_ for id_, line in enumerate(lines)}
