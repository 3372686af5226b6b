"""Text to ids, as transformers' `ElectraTokenizerFast` does it, ids for ids, in Rust from end to end.

    text ── added pieces ── clean, lower, strip accents, part CJK ── split on space and punctuation ── WordPiece
            stay whole      (BertNormalizer)                         (BertPreTokenizer)

As there, a special piece that is written out in a text, such as [MASK], is that piece and not the word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tokenizers import AddedToken
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from electra_serve.errors import PresetError
from electra_serve.presets.tokenizers.pairs import Ids, Packer, TextOrPair, TokenizedText, cut_as_transformers

WINDOW_CHARACTERS_PER_ID: Final = 16
"""How much of a long text is looked at first for each id that can stay. English has about four."""


@dataclass(frozen=True, slots=True)
class AddedPiece:
    """A piece that is found in a text before anything else, as `tokenizers.AddedToken` has it.

    Attributes:
        content: Its text.
        lstrip: Whether it takes the white space before it along.
        rstrip: Likewise, after it.
        single_word: Whether it must stand alone, not inside a word.
        normalized: Whether it is looked for in the normalized text.
        special: Whether it is one of the model's own, such as [SEP].
    """

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False
    special: bool = True


@dataclass(frozen=True, slots=True)
class TransformersTokenizerConfig:
    """What of transformers' tokenizer files decides the ids.

    Attributes:
        vocabulary: The id of each piece.
        added: Pieces that stay whole, by id; the vocabulary may have them or not.
        lowercase: Lower-case all letters.
        strip_accents: Drop combining marks; None: where `lowercase`.
        split_on_cjk: Make each CJK ideograph a word.
        cls_token: What a sequence starts with.
        sep_token: What ends each text.
        unk_token: The piece of an unknown word.
        split_special_tokens: Take special pieces in a text for words.
    """

    vocabulary: Mapping[str, int]
    added: Mapping[int, AddedPiece]
    lowercase: bool = True
    strip_accents: bool | None = None
    split_on_cjk: bool = True
    cls_token: str = "[CLS]"  # noqa: S105  # a word piece, no secret
    sep_token: str = "[SEP]"  # noqa: S105
    unk_token: str = "[UNK]"  # noqa: S105
    split_special_tokens: bool = False

    @property
    def ids(self) -> frozenset[int]:
        """Every id that it can give."""
        return frozenset(self.vocabulary.values()) | self.added.keys()


class TransformersTokenizer:
    """A BERT-style tokenizer. Stateless once built: any thread may use it.

    Args:
        config: Its pieces and settings.

    Raises:
        PresetError: A piece that every sequence needs is missing, or an added piece cannot have its id.
    """

    def __init__(self, config: TransformersTokenizerConfig) -> None:
        needed = (config.cls_token, config.sep_token, config.unk_token)
        missing = [piece for piece in needed if piece not in config.vocabulary]
        if missing:
            raise PresetError(f"the vocabulary must have {', '.join(needed)}; it lacks {missing[0]}")
        self._pipeline = build_pipeline(config)
        self._packer = Packer(
            config.vocabulary[config.cls_token], config.vocabulary[config.sep_token], cut_as_transformers
        )
        self._spaced = any(" " in piece.content for piece in config.added.values())

    def encode(self, texts: Sequence[TextOrPair], *, max_length: int, truncate: bool) -> TokenizedText:
        """See `electra_serve.presets.tokenizers.loader.Tokenizer.encode`."""
        limit = max_length if truncate else None
        return self._packer.pack((self._parts(text, limit) for text in texts), limit)

    def _parts(self, text: TextOrPair, limit: int | None) -> list[Ids]:
        """The ids of a text's parts. Both of a pair are read to the end: which one is longer decides the cut."""
        if isinstance(text, str):
            return [self._ids(text) if limit is None or self._spaced else self._first_ids(text, limit)]
        return [self._ids(part) for part in text]

    def _first_ids(self, text: str, limit: int) -> Ids:
        """All ids, or more than `limit` of the first: a text may be cut at a space without changing ids before it."""
        window = limit * WINDOW_CHARACTERS_PER_ID
        while window < len(text):
            ids = self._ids(text[: max(text.rfind(" ", 0, window), 0)])
            if len(ids) > limit:
                return ids
            window *= 4
        return self._ids(text)

    def _ids(self, text: str) -> Ids:
        # A batch of one, because `encode` holds the GIL to its end: 60 ms for the longest texts.
        ids: list[int] = self._pipeline.encode_batch_fast([_whole(text)], add_special_tokens=False)[0].ids
        return ids


def build_pipeline(config: TransformersTokenizerConfig) -> Pipeline:
    """The Rust tokenizer, without what packs its ids.

    Raises:
        PresetError: An added piece cannot have its id.
    """
    pipeline = Pipeline(WordPiece(dict(config.vocabulary), unk_token=config.unk_token))
    pipeline.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.split_on_cjk,
        strip_accents=config.strip_accents,
        lowercase=config.lowercase,
    )
    pipeline.pre_tokenizer = BertPreTokenizer()
    for id_, piece in sorted(config.added.items()):
        pipeline.add_tokens([_added_token(piece)])
        if pipeline.token_to_id(piece.content) != id_:
            raise PresetError(
                f"an added piece must have the next free id, or its own in the vocabulary; {id_} is neither"
            )
    pipeline.encode_special_tokens = config.split_special_tokens
    return pipeline


def _added_token(piece: AddedPiece) -> AddedToken:
    return AddedToken(
        piece.content,
        lstrip=piece.lstrip,
        rstrip=piece.rstrip,
        single_word=piece.single_word,
        normalized=piece.normalized,
        special=piece.special,
    )


def _whole(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair, which no UTF-8 can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
