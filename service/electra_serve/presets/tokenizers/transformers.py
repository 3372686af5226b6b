"""Text to ids, as transformers' tokenizers do it, ids for ids, in Rust from end to end.

    text ── added pieces ── normalize ── split into words ── pieces ── template
            stay whole

The pipeline is BERT's (`electra_serve.presets.tokenizers.bert_pipeline`), or the one that tokenizer.json holds
(`electra_serve.presets.tokenizers.serialized_pipeline`). As there, a special piece that is written out in a text, such
as [MASK], is that piece and not the word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tokenizers import Tokenizer as Pipeline

from electra_serve.presets.tokenizers.pairs import (
    Ids,
    Packer,
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
        self, texts: Sequence[TextOrPair], *, max_length: int, truncation: Truncation = Truncation.NONE
    ) -> TokenizedText:
        """See `electra_serve.presets.tokenizers.loader.Tokenizer.encode`."""
        return finish(self.encode_in_steps(texts, max_length=max_length, truncation=truncation))

    def encode_in_steps(
        self, texts: Sequence[TextOrPair], *, max_length: int, truncation: Truncation = Truncation.NONE
    ) -> Steps[TokenizedText]:
        """See `electra_serve.presets.tokenizers.loader.Tokenizer.encode_in_steps`."""
        cuts_the_end = truncation not in (Truncation.NONE, Truncation.ONLY_SECOND)
        limit = max_length if cuts_the_end and self._packer.cut_side(truncation) == "right" else None
        rows: list[list[Ids]] = []
        for text in texts:
            parts: list[Ids] = []
            for part in (text,) if isinstance(text, str) else text:
                # Both of a pair are read to the end: which one is longer decides the cut.
                ids = yield from self._part(part, limit if isinstance(text, str) else None)
                parts.append(ids)
            rows.append(parts)
        return self._packer.pack(rows, max_length, truncation)

    def _part(self, text: str, limit: int | None) -> Steps[Ids]:
        """All ids, or more than `limit` of the first: a text may be cut at a space without changing ids before it."""
        ids: list[int] = []
        for window in self._windows(text, limit):
            ids += self._ids(window)
            yield len(window)
            if limit is not None and len(ids) > limit:
                break
        return ids

    def _windows(self, text: str, limit: int | None) -> Iterable[str]:
        if not self._splits_at_spaces:
            return (text,)
        size = STEP_CHARACTERS if limit is None else min(limit * WINDOW_CHARACTERS_PER_ID, STEP_CHARACTERS)
        return windows_at_spaces(text, size)

    def _ids(self, text: str) -> Ids:
        # A batch of one, because `encode` holds the GIL to its end: 60 ms for the longest texts.
        ids: Ids = self._pipeline.encode_batch_fast([_whole(text)], add_special_tokens=False)[0].ids
        return ids


def _whole(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair, which no UTF-8 can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
