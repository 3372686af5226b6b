"""Labeled spans of a text, as transformers' token-classification pipeline gives them.

    none    each token with its best label
    simple  adjacent tokens whose labels have the same name, apart from `B-` and `I-`; `B-` begins another span
    first   likewise of whole words, each with the best label of its first token

The label `O` is left out. The tokenizer says which tokens form a word. The pipeline guesses it from lengths, and
differs if an accent is a character of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.serving.classification.results import Span, Window
from electra_serve.serving.classification.scores import activate
from electra_serve.serving.classification.step_runner import BLOCK_WORK, CHARACTERS_PER_VALUE, ITEM_WORK
from electra_serve.tensors import Aggregation

OUTSIDE: Final = "O"
"""Label of tokens that belong to no span."""

Texts = tuple[str, ...]
"""The text, or both of a pair."""


@dataclass(slots=True)
class _Piece:
    """A token, or a word or span of several."""

    label: str
    scores: list[float]
    part: int | None
    start: int
    end: int
    first_of_word: bool

    @property
    def score(self) -> float:
        return float(np.mean(np.array(self.scores, np.float32)))

    def span(self, texts: Texts | None) -> Span:
        if texts is None or self.part is None:
            return Span(self.label, self.score, token_start=self.start, token_end=self.end)
        characters = texts[self.part][self.start : self.end]
        return Span(self.label, self.score, self.start, self.end, characters, self.part)


def label_spans(
    windows: Sequence[Window], head: HeadConfig, texts: Texts | None, aggregation: Aggregation, *, raw: bool
) -> Steps[tuple[Span, ...]]:
    """Returns the spans of a text, in order; `texts` is None if the request has ids."""
    spans: list[Span] = []
    places: list[int] = []
    for window in windows:
        tokens = yield from _tokens(window, head, raw=raw)
        pieces = (piece for piece in _aggregate(iter(tokens), aggregation) if piece.label != OUTSIDE)
        found = yield from _spans(pieces, texts)
        spans += found
        places += map(_place, found)
    if len(windows) > 1:
        spans = yield from _without_overlaps(spans, places)
    return tuple(spans)


def score_tokens(window: Window, head: HeadConfig, texts: Texts | None, *, raw: bool) -> Steps[tuple[Span, ...]]:
    """Returns each token with the score of the only label, such as the probability that it was replaced."""
    tokens = yield from _tokens(window, head, raw=raw)
    spans = yield from _spans(tokens, texts)
    return tuple(spans)


def _spans(pieces: Iterable[_Piece], texts: Texts | None) -> Steps[list[Span]]:
    spans: list[Span] = []
    for piece in pieces:
        spans.append(piece.span(texts))
        yield ITEM_WORK + len(spans[-1].text or "") // CHARACTERS_PER_VALUE
    return spans


def _tokens(window: Window, head: HeadConfig, *, raw: bool) -> Steps[list[_Piece]]:
    tokens: list[_Piece] = []
    row_work = ITEM_WORK + len(head.labels)
    size = max(BLOCK_WORK // row_work, 1)
    of, words = window.alignment, window.words
    for start in range(0, len(window.logits), size):
        block = window.logits[start : start + size]
        scores = block if raw else activate(block, head.activation)  # (≤ size, L)
        best = scores.argmax(axis=1).tolist()
        of_best = scores.max(axis=1).tolist()
        for row in np.flatnonzero(words[start : start + size]).tolist():
            at, label = start + row, head.labels[best[row]]
            if of is None:
                tokens.append(_Piece(label, [of_best[row]], None, at, at + 1, first_of_word=True))
                continue
            part, first, end = int(of.texts[at]), int(of.starts[at]), int(of.ends[at])
            tokens.append(_Piece(label, [of_best[row]], part, first, end, bool(of.first_of_word[at])))
        yield row_work * len(block)
    return tokens


def _aggregate(tokens: Iterator[_Piece], aggregation: Aggregation) -> Iterator[_Piece]:
    if aggregation is Aggregation.NONE:
        return tokens
    return _grouped(_words(tokens) if aggregation is Aggregation.FIRST else tokens)


def _words(tokens: Iterator[_Piece]) -> Iterator[_Piece]:
    """Joins the tokens of each word; the first one's label and score are the word's."""
    word: _Piece | None = None
    for token in tokens:
        if word is not None and not token.first_of_word and token.part == word.part:
            word.end = token.end
            continue
        if word is not None:
            yield word
        word = token
    if word is not None:
        yield word


def _grouped(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    """Joins pieces in a row with the same name; the score is their mean."""
    group: _Piece | None = None
    last_name = ""
    for piece in pieces:
        begins, name = piece.label.startswith("B-"), _name(piece.label)
        if group is not None and name == last_name and not begins and piece.part == group.part:
            group.end = piece.end
            group.scores += piece.scores
            continue
        if group is not None:
            yield group
        last_name = name
        group = piece
        group.label = group.label.split("-", 1)[-1]
    if group is not None:
        yield group


def _name(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label


def _without_overlaps(spans: Sequence[Span], places: Sequence[int]) -> Steps[list[Span]]:
    """Keeps of spans that overlap the longest one; of the longest ones, that with the best score."""
    kept: list[Span] = []
    for at in np.argsort(np.array(places, np.int64), kind="stable").tolist():
        span = spans[at]
        previous = kept[-1] if kept else None
        if previous is None or previous.part != span.part or not _within(span, previous):
            kept.append(span)
        elif _rank(span) > _rank(previous):
            kept[-1] = span
        yield ITEM_WORK
    return kept


def _place(span: Span) -> int:
    return ((span.part or 0) << 32) + (span.start or 0)


def _within(span: Span, previous: Span) -> bool:
    return (previous.start or 0) <= (span.start or 0) < (previous.end or 0)


def _rank(span: Span) -> tuple[int, float]:
    return (span.end or 0) - (span.start or 0), span.score
