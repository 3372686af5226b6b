"""Tokenizes and checks rows as the service does; a row that fails becomes a `Problem` instead of an error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

from electra_serve.bulk.values import Problem, TokenRow, Value
from electra_serve.errors import InvalidInput
from electra_serve.presets.tokenizers.alignment import Alignment
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer
from electra_serve.presets.tokenizers.pairs import TextOrPair
from electra_serve.serving.classification.plan import Plan
from electra_serve.serving.embed import with_prompt
from electra_serve.serving.tokenization import TextLimits, check_characters, check_tokenized, longest_cut
from electra_serve.serving.validation import InputLimits, validate
from electra_serve.tensors import Encoding, IntArray, TextInput, TokenInput, Truncation

UNLIMITED: Final = sys.maxsize  # sequences of a run


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A row that can be encoded: one sequence, or several windows of a long text."""

    encodings: tuple[Encoding, ...]
    alignments: tuple[Alignment, ...] | None = None
    value: TextOrPair | TokenRow | None = None  # kept if labels need the characters

    @property
    def positions(self) -> int:
        """Positions of all sequences."""
        return sum(map(len, self.encodings))


Row: TypeAlias = Prepared | Problem


@dataclass(frozen=True, slots=True, eq=False)
class _Draft:
    """A row whose ids are not yet validated; each sequence has segments and a mask, or None."""

    token_ids: Sequence[IntArray]
    segment_ids: Sequence[IntArray | None]
    padding_mask: Sequence[IntArray | None]
    alignments: tuple[Alignment, ...] | None
    value: TextOrPair | TokenRow | None


class Preparer:
    """Turns rows into sequences; `plan` is that of a head whose labels are computed."""

    def __init__(
        self,
        tokenizer: Tokenizer | NoTokenizer,
        limits: InputLimits,
        text_limits: TextLimits,
        truncation: Truncation,
        *,
        prompt: str = "",
        plan: Plan | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._limits = limits
        self._text_limits = text_limits
        self._truncation = truncation
        self._prompt = prompt
        self._stride = None if plan is None else plan.stride
        self._aligned = plan is not None and plan.aligned
        self._keeps_values = plan is not None
        self._needs_context = plan is not None and plan.head.kind == "question_answering"
        self._longest = limits.max_sequence_length
        # Tokenizers truncate texts, except by rules of a pair, which ids do not have.
        self._truncation_of_ids = Truncation.NONE if truncation is Truncation.ONLY_SECOND else truncation
        if isinstance(tokenizer, NoTokenizer):
            return
        if self._stride is not None or truncation is not Truncation.NONE:
            self._longest = longest_cut(tokenizer, limits)

    def prepare(self, values: Sequence[Value]) -> list[Row]:
        """Prepares rows, in order."""
        drafts = [value if isinstance(value, Problem) else self._draft(value) for value in values]
        good = [draft for draft in drafts if isinstance(draft, _Draft)]
        prepared = iter(self._validate(good))
        return [next(prepared) if isinstance(draft, _Draft) else draft for draft in drafts]

    def _draft(self, value: TextOrPair | TokenRow) -> _Draft | Problem:
        try:
            return self._ids(value) if isinstance(value, TokenRow) else self._text(value)
        except InvalidInput as error:
            return Problem(error.message)

    def _validate(self, drafts: Sequence[_Draft]) -> Sequence[Row]:
        """Checks all rows at once, which is faster, or one after the other if one of them is invalid."""
        if not drafts:
            return []
        tokens = TokenInput(
            [ids for draft in drafts for ids in draft.token_ids],
            _joined([draft.segment_ids for draft in drafts]),
            _joined([draft.padding_mask for draft in drafts]),
        )
        try:
            encodings = iter(validate(tokens, self._limits, self._truncation_of_ids).encodings)
        except InvalidInput as error:
            if len(drafts) == 1:
                return [Problem(error.message)]
            return [row for draft in drafts for row in self._validate([draft])]
        return [
            Prepared(tuple(islice(encodings, len(draft.token_ids))), draft.alignments, draft.value) for draft in drafts
        ]

    def _ids(self, row: TokenRow) -> _Draft:
        if self._needs_context and (row.segment_ids is None or not (row.segment_ids == 1).any()):
            raise InvalidInput("question answering needs a context, ids of segment 1; got none")
        return _Draft([row.token_ids], [row.segment_ids], [row.padding_mask], None, self._kept(row))

    def _text(self, value: TextOrPair) -> _Draft:
        if isinstance(self._tokenizer, NoTokenizer):
            raise InvalidInput(self._tokenizer.reason)
        check_characters(TextInput((value,)), self._text_limits)
        row = self._tokenizer.encode(
            with_prompt((value,), self._prompt),
            max_length=self._longest,
            truncation=self._truncation,
            stride=self._stride,
            aligned=self._aligned,
        )
        check_tokenized(row, 0, self._limits, self._longest, self._truncation, self._stride)
        alignments = None if row.alignments is None else tuple(row.alignments)
        nothing = [None] * len(row.token_ids)
        return _Draft(row.token_ids, row.segment_ids, nothing, alignments, self._kept(value))

    def _kept(self, value: TextOrPair | TokenRow) -> TextOrPair | TokenRow | None:
        return value if self._keeps_values else None


def _joined(parts: Sequence[Sequence[IntArray | None]]) -> list[IntArray] | None:
    """Returns the arrays of all rows; None if the input has none."""
    arrays = [array for part in parts for array in part if array is not None]
    return arrays or None
