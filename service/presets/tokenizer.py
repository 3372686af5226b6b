"""Text to ids, as KerasHub's `ElectraTokenizer` does it, ids for ids.

    text ── strip accents ── split into words ── fold case ── WordPiece ── [CLS] … [SEP]
            (if asked)       (pure, here)        (if asked)   (Rust)

The splitting is KerasHub's to the letter, oddities included: of white space only the ASCII kind parts words, so a
no-break space glues two words into one that the vocabulary does not have; control and format characters do
part words; and lower-casing is Unicode's NFKC_Casefold after the split, so `…` becomes the one word `...`.

Everything is linear in the length of the text, and with truncation only as many words are looked up as can
still matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer as PieceTokenizer
from tokenizers.models import WordPiece

from service.errors import PresetError
from service.presets.folder import TOKENIZER_FILE, VOCABULARY_FILE, PresetFolder, read_json
from service.presets.words import WordSplitter, fold_case, strip_accents
from service.tensors import Int32Array

TOKENIZER_CLASSES: Final = frozenset({"keras_hub>ElectraTokenizer", "keras_nlp>ElectraTokenizer"})
MAX_VOCABULARY_BYTES: Final = 64 * 2**20
MAX_WORD_BYTES: Final = 100
"""Longer words are unknown, as in the original BERT; it bounds the greedy search, which is quadratic."""
MAX_WORD_CHARACTERS: Final = 1000
"""Longer words are unknown without being folded, which can make 18 characters of one."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedText:
    """Texts as ids.

    Attributes:
        token_ids: One (T,) int32 array per text.
        segment_ids: Likewise: 0, and 1 for the second text of a pair and its [SEP].
        truncated: Per text, whether it was cut.
    """

    token_ids: Sequence[Int32Array]
    segment_ids: Sequence[Int32Array]
    truncated: Sequence[bool]


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """What of KerasHub's tokenizer settings decides the ids.

    Attributes:
        lowercase: Fold case.
        strip_accents: Drop combining marks.
        split_on_cjk: Make each CJK ideograph a word.
        suffix_indicator: What a piece inside a word starts with.
        oov_token: The piece of an unknown word.
    """

    lowercase: bool = False
    strip_accents: bool = False
    split_on_cjk: bool = True
    suffix_indicator: str = "##"
    oov_token: str = "[UNK]"  # noqa: S105  # a word piece, no secret


class Tokenizer:
    """A WordPiece tokenizer. Stateless once built: any thread may use it.

    Args:
        vocabulary: The pieces, each at its id.
        config: How text becomes words.

    Raises:
        PresetError: The vocabulary lacks [CLS], [SEP] or the unknown piece.
    """

    def __init__(self, vocabulary: Sequence[str], config: TokenizerConfig) -> None:
        ids = {piece: i for i, piece in enumerate(vocabulary)}
        missing = [piece for piece in ("[CLS]", "[SEP]", config.oov_token) if piece not in ids]
        if missing:
            raise PresetError(f"the vocabulary must have [CLS], [SEP] and {config.oov_token}; it lacks {missing[0]}")
        self._config = config
        self._splitter = WordSplitter(split_on_cjk=config.split_on_cjk)
        self._cls, self._sep = ids["[CLS]"], ids["[SEP]"]
        self._pieces = PieceTokenizer(
            WordPiece(
                ids,
                unk_token=config.oov_token,
                continuing_subword_prefix=config.suffix_indicator,
                max_input_chars_per_word=MAX_WORD_BYTES,
            )
        )

    def encode(self, texts: Sequence[str | tuple[str, str]], *, max_length: int, truncate: bool) -> TokenizedText:
        """Turns texts into `[CLS] a [SEP]` and pairs into `[CLS] a [SEP] b [SEP]`.

        Args:
            texts: Each a text, or a pair of texts.
            max_length: Most ids of one result, at least 3 for a pair and 2 otherwise.
            truncate: Cut what is longer than `max_length`, of a pair the longer text first. The [SEP]s stay. If
                False nothing is cut: results may be longer than `max_length`.
        """
        rows = [self._encode(text, max_length if truncate else None) for text in texts]
        return TokenizedText(
            token_ids=tuple(row[0] for row in rows),
            segment_ids=tuple(row[1] for row in rows),
            truncated=tuple(row[2] for row in rows),
        )

    def _encode(self, text: str | tuple[str, str], max_length: int | None) -> tuple[Int32Array, Int32Array, bool]:
        parts = [self._ids(part, max_length) for part in ((text,) if isinstance(text, str) else text)]
        kept = parts if max_length is None else cut(parts, max_length - 1 - len(parts))
        token_ids = [self._cls]
        segment_ids = [0]
        for segment, part in enumerate(kept):
            token_ids += [*part, self._sep]
            segment_ids += [segment] * (len(part) + 1)
        truncated = sum(map(len, kept)) < sum(map(len, parts))
        return np.array(token_ids, np.int32), np.array(segment_ids, np.int32), truncated

    def _ids(self, text: str, max_words: int | None) -> list[int]:
        """The pieces of the first `max_words` words: each word is at least one piece."""
        words = list(islice(self._words(text), max_words))
        ids: list[int] = self._pieces.encode(words, is_pretokenized=True, add_special_tokens=False).ids
        return ids

    def _words(self, text: str) -> Iterator[str]:
        for word in self._splitter.split(strip_accents(text) if self._config.strip_accents else text):
            if len(word) > MAX_WORD_CHARACTERS:
                yield self._config.oov_token
                continue
            folded = fold_case(word) if self._config.lowercase else word
            if len(folded.encode()) > MAX_WORD_BYTES:
                yield self._config.oov_token
            elif folded:
                yield folded


def cut(parts: Sequence[Sequence[int]], budget: int) -> list[Sequence[int]]:
    """Shortens one or two parts to `budget` ids in all, the longer of two first; the first keeps the odd one.

    Example:
        >>> cut([[1, 2, 3, 4], [5]], 3), cut([[1, 2, 3, 4], [5, 6, 7]], 5)
        ([[1, 2], [5]], [[1, 2, 3], [5, 6]])
    """
    if len(parts) == 1:
        return [parts[0][:budget]]
    first, second = map(len, parts)
    kept = min(first, max(budget - second, (budget + 1) // 2))
    return [parts[0][:kept], parts[1][: budget - kept]]


def load_tokenizer(preset: PresetFolder) -> Tokenizer | None:
    """The tokenizer of a preset; None where it has none.

    Raises:
        PresetError: Its files are unreadable, or ask for what this tokenizer does not do.
    """
    if preset.path is None or not preset.has_tokenizer:
        return None
    config = _read_config(preset.path / TOKENIZER_FILE)
    vocabulary = _read_vocabulary(preset.path / VOCABULARY_FILE)
    if len(vocabulary) > preset.config.vocab_size:
        raise PresetError(
            f"{preset.id}: the vocabulary must have at most {preset.config.vocab_size} pieces, as the model's "
            f"vocab_size says; it has {len(vocabulary)}"
        )
    return Tokenizer(vocabulary, config)


def _read_config(path: Path) -> TokenizerConfig:
    content = read_json(path)
    name, values = content.get("registered_name"), content.get("config")
    if name not in TOKENIZER_CLASSES or not isinstance(values, dict):
        raise PresetError(f"{path}: must be the config of one of {', '.join(sorted(TOKENIZER_CLASSES))}; it is not")
    if values.get("split", True) is not True or values.get("special_tokens_in_strings", False) is not False:
        raise PresetError(f"{path}: split must be true and special_tokens_in_strings false; they are not")
    known = {f.name: values[f.name] for f in fields(TokenizerConfig) if f.name in values}
    for field in fields(TokenizerConfig):
        if type(known.get(field.name, field.default)) is not type(field.default):
            raise PresetError(f"{path}: {field.name} must be like {field.default!r}; it is of another type")
    return TokenizerConfig(**known)


def _read_vocabulary(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_VOCABULARY_BYTES:
            raise PresetError(f"{path}: at most {MAX_VOCABULARY_BYTES} bytes are read; it has more")
        with path.open(encoding="utf-8") as lines:
            return [line.rstrip() for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise PresetError(f"{path}: must be readable UTF-8, one piece a line; it is not") from error
