"""Text to ids, as transformers' tokenizers do it, ids for ids, in Rust from end to end.

    text ── added pieces ── normalize ── split into words ── pieces ── template
            stay whole

The pipeline is BERT's (`electra_serve.presets.tokenizers.bert_pipeline`), or the one that tokenizer.json holds
(`electra_serve.presets.tokenizers.serialized_pipeline`). As there, a special piece that is written out in a text, such
as [MASK], is that piece and not the word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tokenizers import Tokenizer as Pipeline

from electra_serve.presets.tokenizers.alignment import AlignedIds
from electra_serve.presets.tokenizers.pairs import (
    Packer,
    Part,
    Side,
    Template,
    TextOrPair,
    TokenizedText,
    keep_as_transformers,
)
from electra_serve.presets.tokenizers.steps import STEP_CHARACTERS, Steps, finish, windows_at_spaces
from electra_serve.tensors import Truncation

WINDOW_CHARACTERS_PER_ID: Final = 16
"""Characters of a long text that are read at a time for each id that can remain. English has about four."""
SURROGATE_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
"""One character in two halves: Python keeps them apart, and `_whole` joins them."""


@dataclass(frozen=True, slots=True, eq=False)
class BuiltPipeline:
    """A pipeline that was built from files.

    Attributes:
        pipeline: Makes ids of a text, without the template.
        template: The form of its sequences.
        side: The side that the pipeline's own files cut.
        lowercase: Whether it certainly lower-cases.
        splits_at_spaces: Whether a text may be cut at a space without changing the ids before it.
    """

    pipeline: Pipeline
    template: Template
    side: Side = "right"
    lowercase: bool = False
    splits_at_spaces: bool = False


class TransformersTokenizer:
    """A tokenizer of transformers'. Stateless once built: any thread may use it."""

    def __init__(
        self,
        pipeline: Pipeline,
        template: Template,
        *,
        side: Side = "right",
        max_length: int | None = None,
        splits_at_spaces: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._packer = Packer(template, keep_as_transformers, side)
        self._max_length = max_length
        self._splits_at_spaces = splits_at_spaces

    @property
    def max_length(self) -> int | None:
        """See `electra_serve.presets.tokenizers.loader.Tokenizer.max_length`."""
        return self._max_length

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
        cuts_the_end = stride is None and truncation not in (Truncation.NONE, Truncation.ONLY_SECOND)
        limit = max_length if cuts_the_end and self._packer.cut_side(truncation) == "right" else None
        rows: list[list[Part]] = []
        for text in texts:
            parts: list[Part] = []
            for part in (text,) if isinstance(text, str) else text:
                # Both of a pair are read to the end: which one is longer decides the cut.
                ids = yield from self._part(part, limit if isinstance(text, str) else None, aligned=aligned)
                parts.append(ids)
            rows.append(parts)
        return self._packer.pack(rows, max_length, truncation, stride)

    def piece(self, id_: int) -> str:
        """See `electra_serve.presets.tokenizers.loader.Tokenizer.piece`."""
        return self._pipeline.id_to_token(id_) or ""

    def decode(self, token_ids: Sequence[int], *, skip_special: bool) -> str:
        """See `electra_serve.presets.tokenizers.loader.Tokenizer.decode`."""
        text: str = self._pipeline.decode_batch([list(token_ids)], skip_special_tokens=skip_special)[0]
        return text

    def _part(self, text: str, limit: int | None, *, aligned: bool) -> Steps[Part]:
        """All ids, or more than `limit` of the first: a text may be cut at a space without changing ids before it."""
        ids: list[int] | AlignedIds = AlignedIds() if aligned else []
        begin = 0
        for window in self._windows(text, limit):
            if isinstance(ids, AlignedIds):
                self._align(ids, window, begin)
            else:
                ids += self._ids(window)
            begin += len(window)
            yield len(window)
            if limit is not None and len(ids) > limit:
                break
        return ids

    def _windows(self, text: str, limit: int | None) -> Iterable[str]:
        if not self._splits_at_spaces:
            return (text,)
        size = STEP_CHARACTERS if limit is None else min(limit * WINDOW_CHARACTERS_PER_ID, STEP_CHARACTERS)
        return windows_at_spaces(text, size)

    def _ids(self, text: str) -> list[int]:
        # A batch of one, because `encode` holds the GIL to its end: 60 ms for the longest texts.
        ids: list[int] = self._pipeline.encode_batch_fast([_whole(text)], add_special_tokens=False)[0].ids
        return ids

    def _align(self, ids: AlignedIds, text: str, begin: int) -> None:
        """Adds the ids of a window that begins at a character; the fast way of `_ids` has no offsets."""
        encoding = self._pipeline.encode_batch([_whole(text)], add_special_tokens=False)[0]
        ids.extend(encoding, begin, _positions(text))


def _whole(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair, which no UTF-8 can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _positions(text: str) -> list[int] | None:
    r"""Returns the place in `text` of each character of `_whole(text)`, and of its end; None if they are the same.

    Example:
        >>> _positions("ab\ud83d\ude00c"), _positions("ab")
        ([0, 1, 2, 4, 5], None)
    """
    if not SURROGATE_PAIR.search(text):
        return None
    merged = {match.start() + 1 for match in SURROGATE_PAIR.finditer(text)}
    return [at for at in range(len(text) + 1) if at not in merged]
