"""Options and results of a classification, for every kind of head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from electra_serve.presets.tokenizers.alignment import NO_TEXT, Alignment
from electra_serve.tensors import Aggregation, Encoding, Float32Array

DEFAULT_STRIDE: Final = 128
"""Ids that windows of a context share, as in transformers' question-answering pipeline."""
DEFAULT_MAX_ANSWER_LENGTH: Final = 15
"""Likewise."""


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """Options of a request; None for the default of the model's head.

    Attributes:
        top_k: Most labels or answer spans of a sequence; by default all labels, and one answer span.
        raw_scores: Logits instead of scores.
        aggregation: Rule that joins labeled tokens to spans; by default `simple`.
        stride: Ids that windows of a long text share; without it, long texts are not cut into windows.
        max_answer_length: Most ids of an answer span.
    """

    top_k: int | None = None
    raw_scores: bool = False
    aggregation: Aggregation | None = None
    stride: int | None = None
    max_answer_length: int | None = None


DEFAULT_OPTIONS: Final = ClassifyOptions()


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a sequence."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a sequence with a label, or an answer span, whose label is "".

    Attributes:
        start: First character; None if the request has ids.
        end: The character after the last one; None if the request has ids.
        text: These characters; None if the request has ids.
        part: 0 for the only or first text, 1 for the second; None if the request has ids.
        token_start: First position of the ids; None if the request has texts.
        token_end: The position after the last one; None if the request has texts.
    """

    label: str
    score: float
    start: int | None = None
    end: int | None = None
    text: str | None = None
    part: int | None = None
    token_start: int | None = None
    token_end: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Logits of one sequence, and the origin of its positions.

    Attributes:
        logits: (T, L).
        encoding: Its ids.
        alignment: Origin of each position; None if the request has ids.
    """

    logits: Float32Array
    encoding: Encoding
    alignment: Alignment | None = None

    @property
    def words(self) -> NDArray[np.bool_]:
        """(T,), true for positions of the texts; of ids, for all unmasked ones, since special ids are not known."""
        if self.alignment is not None:
            return np.asarray(self.alignment.texts != NO_TEXT)
        return np.asarray(self.encoding.padding_mask == 1)

    @property
    def context(self) -> NDArray[np.bool_]:
        """(T,), true for positions of the second text.

        Of ids, these are the unmasked ones of segment 1, except the last one, which is [SEP].
        """
        if self.alignment is not None:
            return np.asarray(self.alignment.texts == 1)
        second = np.asarray((self.encoding.padding_mask == 1) & (self.encoding.segment_ids == 1))
        second[np.flatnonzero(second)[-1:]] = False
        return second
