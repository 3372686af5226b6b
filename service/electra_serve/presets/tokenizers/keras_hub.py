"""Text to ids, as KerasHub's `ElectraTokenizer` does it, ids for ids.

    text ── strip accents ── split into words ── fold case ── WordPiece ── [CLS] … [SEP]
            (if asked)       (pure, here)        (if asked)   (Rust)

Words are split exactly as in KerasHub. Only ASCII white space splits them, so two words around a no-break space become
one that the vocabulary lacks. Control and format characters split words too. Case is folded by NFKC_Casefold after the
split, so `…` becomes the word `...`. Time is linear in the length of the text. With truncation, only words that can
remain are looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Final, cast

from tokenizers import Tokenizer as PieceTokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece

from electra_serve.errors import PresetError
from electra_serve.presets.files import read_json, read_lines
from electra_serve.presets.folder import TOKENIZER_FILE, VOCABULARY_FILE
from electra_serve.presets.tokenizers.alignment import AlignedIds, Ids
from electra_serve.presets.tokenizers.pairs import (
    LONGER_FIRST,
    Packer,
    Part,
    Template,
    TextOrPair,
    TokenizedText,
    keep_as_keras_hub,
)
from electra_serve.presets.tokenizers.steps import STEP_CHARACTERS, Steps, finish
from electra_serve.presets.tokenizers.tokenizer_classes import UnsupportedTokenizer
from electra_serve.presets.tokenizers.word_alignment import AlignedWord, fold_aligned, strip_aligned, words_aligned
from electra_serve.presets.tokenizers.word_splitter import AccentStripper, WordSplitter, fold_case
from electra_serve.tensors import Truncation

TOKENIZER_CLASSES: Final = frozenset({"keras_hub>ElectraTokenizer", "keras_nlp>ElectraTokenizer"})
MAX_VOCABULARY_BYTES: Final = 64 * 2**20
MAX_WORD_BYTES: Final = 100
"""Longer words are unknown, as in the original BERT; it bounds the greedy search, which is quadratic."""
MAX_WORD_CHARACTERS: Final = 1000
"""Longer words are unknown without being folded, which can make 18 characters of one."""
SPECIAL_PIECES: Final = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
"""Special pieces, with the unknown one."""


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """Settings of KerasHub's tokenizer that determine the ids."""

    lowercase: bool = False
    strip_accents: bool = False
    split_on_cjk: bool = True
    suffix_indicator: str = "##"
    oov_token: str = "[UNK]"  # noqa: S105  # a word piece, no secret


@dataclass(frozen=True, slots=True)
class KerasTokenizerFiles:
    """Contents of a preset's tokenizer files."""

    vocabulary: Sequence[str]
    config: TokenizerConfig


class KerasTokenizer:
    """A WordPiece tokenizer. Stateless once built: any thread may use it.

    Raises:
        PresetError: The vocabulary lacks [CLS], [SEP] or the unknown piece.
    """

    def __init__(self, vocabulary: Sequence[str], config: TokenizerConfig) -> None:
        ids = {piece: i for i, piece in enumerate(vocabulary)}
        missing = [piece for piece in ("[CLS]", "[SEP]", config.oov_token) if piece not in ids]
        if missing:
            raise UnsupportedTokenizer(
                f"the vocabulary must have [CLS], [SEP] and {config.oov_token}; it lacks {missing[0]}"
            )
        self._config = config
        self._splitter = WordSplitter(split_on_cjk=config.split_on_cjk)
        self._accents = AccentStripper()
        self._packer = Packer(Template.bert(ids["[CLS]"], ids["[SEP]"]), keep_as_keras_hub)
        self._pieces = PieceTokenizer(
            WordPiece(
                ids,
                unk_token=config.oov_token,
                continuing_subword_prefix=config.suffix_indicator,
                max_input_chars_per_word=MAX_WORD_BYTES,
            )
        )
        self._pieces.decoder = WordPieceDecoder(prefix=config.suffix_indicator)
        self._special = frozenset(ids[piece] for piece in (*SPECIAL_PIECES, config.oov_token) if piece in ids)

    @property
    def max_length(self) -> int | None:
        """None: KerasHub's files do not bound it."""
        return None

    def encode(
        self,
        texts: Sequence[TextOrPair],
        *,
        max_length: int,
        truncation: Truncation = Truncation.NONE,
        stride: int | None = None,
        aligned: bool = False,
    ) -> TokenizedText:
        """See `electra_serve.presets.tokenizers.loader.Tokenizer.encode`."""
        steps = self.encode_in_steps(
            texts, max_length=max_length, truncation=truncation, stride=stride, aligned=aligned
        )
        return finish(steps)

    def encode_in_steps(
        self,
        texts: Sequence[TextOrPair],
        *,
        max_length: int,
        truncation: Truncation = Truncation.NONE,
        stride: int | None = None,
        aligned: bool = False,
    ) -> Steps[TokenizedText]:
        """See `electra_serve.presets.tokenizers.loader.Tokenizer.encode_in_steps`."""
        from_the_start = truncation in LONGER_FIRST and self._packer.cut_side(truncation) == "right"
        limit = max_length if from_the_start and stride is None else None
        rows: list[list[Part]] = []
        for text in texts:
            parts: list[Part] = []
            for part in (text,) if isinstance(text, str) else text:
                ids: Part = yield from (self._aligned_ids if aligned else self._ids)(part, limit)
                parts.append(ids)
            rows.append(parts)
        return self._packer.pack(rows, max_length, truncation, stride)

    def piece(self, id_: int) -> str:
        """See `electra_serve.presets.tokenizers.loader.Tokenizer.piece`."""
        return self._pieces.id_to_token(id_) or ""

    def decode(self, token_ids: Sequence[int], *, skip_special: bool) -> str:
        """See `electra_serve.presets.tokenizers.loader.Tokenizer.decode`."""
        kept = [id_ for id_ in token_ids if not skip_special or id_ not in self._special]
        text: str = self._pieces.decode_batch([kept])[0]
        return text

    def _ids(self, text: str, max_words: int | None) -> Steps[Ids]:
        """The pieces of the first `max_words` words: each word is at least one piece."""
        ids: list[int] = []
        words_left = max_words
        unfinished = ""
        for window in self._windows(text):
            *words, unfinished = (unfinished + self._spaced(window)).split(" ")
            unfinished = unfinished[: MAX_WORD_CHARACTERS + 1]  # unknown, whatever follows
            known = list(islice(self._known(words), words_left))
            ids += self._pieces_of(known)
            yield len(window)
            if words_left is not None:
                words_left -= len(known)
                if not words_left:
                    return ids
        return ids + self._pieces_of(list(self._known([unfinished])))

    def _aligned_ids(self, text: str, max_words: int | None) -> Steps[Part]:
        """Does the same as `_ids`, with the characters of each id."""
        ids = AlignedIds()
        words_left = max_words
        unfinished = AlignedWord()
        begin = 0
        accents = self._accents if self._config.strip_accents else None
        for window in self._windows(text):
            placed = strip_aligned(window, begin, accents)
            *words, unfinished = words_aligned(placed, self._splitter, unfinished, MAX_WORD_CHARACTERS + 1)
            known = list(islice(self._known_aligned(words), words_left))
            self._align(ids, known)
            begin += len(window)
            yield len(window)
            if words_left is not None:
                words_left -= len(known)
                if not words_left:
                    return ids
        self._align(ids, list(self._known_aligned([unfinished])))
        return ids

    def _align(self, ids: AlignedIds, words: Sequence[AlignedWord]) -> None:
        texts = [word.text for word in words]
        (encoding,) = self._pieces.encode_batch([texts], is_pretokenized=True, add_special_tokens=False)
        previous = -1
        numbers = cast("list[int]", encoding.word_ids)  # none is None: no template is added
        for id_, of, (start, end) in zip(encoding.ids, numbers, encoding.offsets, strict=True):
            ids.append(id_, *words[of].span(start, end), first=of != previous)
            previous = of

    def _known_aligned(self, words: Iterable[AlignedWord]) -> Iterator[AlignedWord]:
        """Does the same as `_known`."""
        for word in words:
            if word.length > MAX_WORD_CHARACTERS:
                yield word.whole(self._config.oov_token)
                continue
            folded = fold_aligned(word) if self._config.lowercase else word
            if len(folded.text.encode()) > MAX_WORD_BYTES:
                yield word.whole(self._config.oov_token)
            elif folded.chars:
                yield folded

    def _windows(self, text: str) -> Iterator[str]:
        if self._config.strip_accents:
            return self._accents.windows(text, STEP_CHARACTERS)
        return (text[start : start + STEP_CHARACTERS] for start in range(0, len(text), STEP_CHARACTERS))

    def _spaced(self, window: str) -> str:
        return self._splitter.space(self._accents.strip(window) if self._config.strip_accents else window)

    def _pieces_of(self, words: list[str]) -> list[int]:
        # A batch of one, because `encode` holds the GIL to its end.
        encoded = self._pieces.encode_batch_fast([words], is_pretokenized=True, add_special_tokens=False)
        ids: list[int] = encoded[0].ids
        return ids

    def _known(self, words: Iterable[str]) -> Iterator[str]:
        """Folds words; those that are too long become the unknown piece, and those of nothing disappear."""
        for word in words:
            if len(word) > MAX_WORD_CHARACTERS:
                yield self._config.oov_token
                continue
            folded = fold_case(word) if self._config.lowercase else word
            if len(folded.encode()) > MAX_WORD_BYTES:
                yield self._config.oov_token
            elif folded:
                yield folded


def read_keras_tokenizer(folder: Path) -> KerasTokenizerFiles:
    """Reads the tokenizer of a KerasHub preset; raises `PresetError`."""
    config = _read_config(folder / TOKENIZER_FILE)
    lines = read_lines(folder / VOCABULARY_FILE, max_bytes=MAX_VOCABULARY_BYTES)
    return KerasTokenizerFiles([line.rstrip() for line in lines], config)


def _read_config(path: Path) -> TokenizerConfig:
    content = read_json(path)
    name, values = content.get("registered_name"), content.get("config")
    if name not in TOKENIZER_CLASSES or not isinstance(values, dict):
        raise UnsupportedTokenizer(
            f"{TOKENIZER_FILE} must be of one of {', '.join(sorted(TOKENIZER_CLASSES))}; it is not"
        )
    if values.get("split", True) is not True or values.get("special_tokens_in_strings", False) is not False:
        raise UnsupportedTokenizer(
            f"{TOKENIZER_FILE}: split must be true and special_tokens_in_strings false; they are not"
        )
    known = {f.name: values[f.name] for f in fields(TokenizerConfig) if f.name in values}
    for field in fields(TokenizerConfig):
        if type(known.get(field.name, field.default)) is not type(field.default):
            raise PresetError(f"{path}: {field.name} must be like {field.default!r}; it is of another type")
    return TokenizerConfig(**known)
