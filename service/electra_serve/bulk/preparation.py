"""Tokenizes and checks rows as the service does; a row that fails becomes a `Problem` instead of an error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from electra_serve.bulk.values import Problem, TokenRow, Value
from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.presets.tokenizers.alignment import Alignment
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer
from electra_serve.presets.tokenizers.pairs import TextOrPair
from electra_serve.serving.classification.plan import Plan
from electra_serve.serving.embed import with_prompt
from electra_serve.serving.tokenization import TextLimits, check_characters, check_tokenized, longest_cut
from electra_serve.serving.validation import InputLimits, validate
from electra_serve.tensors import Encoding, TextInput, TokenInput, Truncation

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
        if isinstance(tokenizer, NoTokenizer):
            return
        if self._stride is not None or truncation is not Truncation.NONE:
            self._longest = longest_cut(tokenizer, limits)

    def prepare(self, values: Sequence[Value]) -> list[Row]:
        """Prepares rows, in order."""
        return [value if isinstance(value, Problem) else self._row(value) for value in values]

    def _row(self, value: TextOrPair | TokenRow) -> Row:
        try:
            prepared = self._ids(value) if isinstance(value, TokenRow) else self._text(value)
        except (InvalidInput, PayloadTooLarge) as error:
            return Problem(error.message)
        return prepared

    def _ids(self, row: TokenRow) -> Prepared:
        if self._needs_context and (row.segment_ids is None or not (row.segment_ids == 1).any()):
            raise InvalidInput("question answering needs a context, ids of segment 1; got none")
        tokens = TokenInput(
            [row.token_ids],
            None if row.segment_ids is None else [row.segment_ids],
            None if row.padding_mask is None else [row.padding_mask],
        )
        return Prepared(validate(tokens, self._limits, self._truncation).encodings, None, self._kept(row))

    def _text(self, value: TextOrPair) -> Prepared:
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
        encodings = validate(TokenInput(row.token_ids, row.segment_ids), self._limits).encodings
        alignments = None if row.alignments is None else tuple(row.alignments)
        return Prepared(encodings, alignments, self._kept(value))

    def _kept(self, value: TextOrPair | TokenRow) -> TextOrPair | TokenRow | None:
        return value if self._keeps_values else None
