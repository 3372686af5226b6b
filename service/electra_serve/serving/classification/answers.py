"""Answer spans of a question, as the question-answering pipeline of transformers 4 gives them.

The score of a span is the probability of its start times that of its end, within one window. Spans are widened to whole
words. The same text in several places or windows is one answer span, with the sum of their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from electra_serve.presets.tokenizers.alignment import Alignment
from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.serving.classification.results import Span, Window
from electra_serve.serving.classification.scores import softmax
from electra_serve.serving.classification.step_runner import CHARACTERS_PER_VALUE, ITEM_WORK
from electra_serve.tensors import Float32Array

CONTEXT: Final = 1
"""Number of the text of a pair that holds the answer spans."""
CANDIDATE_WORK: Final = 2
"""Values that a pair of positions counts as."""
Words = tuple[NDArray[np.int64], NDArray[np.int64]]
"""For each position, the first and the last one of its word."""


def find_answers(
    windows: Sequence[Window], context: str | None, *, top_k: int, max_length: int, raw: bool
) -> Steps[tuple[Span, ...]]:
    """Returns the `top_k` best answer spans, the best first.

    Args:
        windows: Logits of start and end, (T, 2), of each window of the context.
        context: The context; None if the request has ids.
        top_k: Most answer spans.
        max_length: Most ids of an answer span.
        raw: Scores are sums of both logits, and the same text has the best of its scores.
    """
    found: dict[object, Span] = {}
    for window in windows:
        words = None if window.alignment is None else _whole_words(window.alignment)
        candidates = _best(window, 2 * top_k + 10, max_length, raw=raw)
        yield CANDIDATE_WORK * len(window.logits) * min(max_length, len(window.logits))
        for start, end, score in candidates:
            answer = _span(window.alignment, words, context, start, end, score)
            key = (start, end) if answer.text is None else answer.text.lower()
            known = found.get(key)
            if known is None:
                found[key] = answer
            elif raw:
                found[key] = max(known, answer, key=lambda span: span.score)
            else:
                found[key] = replace(known, score=known.score + answer.score)
            yield ITEM_WORK + len(answer.text or "") // CHARACTERS_PER_VALUE
    return tuple(sorted(found.values(), key=lambda span: -span.score)[:top_k])


def _best(window: Window, count: int, max_length: int, *, raw: bool) -> list[tuple[int, int, float]]:
    """Returns start, end and score of the best spans inside the context; the end is inclusive."""
    context = window.context
    if not context.any():
        return []
    length = min(max_length, len(context))
    begins, ends = window.logits.T if raw else _probabilities(window.logits, context)  # (T,)
    nothing = np.float32(-np.inf)
    begins, ends = np.where(context, begins, nothing), np.where(context, ends, nothing)
    padded = np.concatenate([ends, np.full(length - 1, nothing)])
    following = sliding_window_view(padded, length)  # (T, length): ends at most that many positions on
    scores = begins[:, None] + following if raw else _products(begins, following)
    flat = scores.ravel()
    best = np.argpartition(-flat, count)[:count] if len(flat) > count else np.arange(len(flat))
    best = best[np.argsort(-flat[best], kind="stable")]
    best = best[np.isfinite(flat[best])]
    starts, further = np.divmod(best, length)
    return list(zip(starts.tolist(), (starts + further).tolist(), flat[best].tolist(), strict=True))


def _probabilities(logits: Float32Array, context: NDArray[np.bool_]) -> Float32Array:
    """Returns (2, T): softmax over the context and [CLS], which models choose if the context has no answer span."""
    counted = context.copy()
    counted[0] = True
    return softmax(np.where(counted, logits.T, np.float32(-10_000.0)))


def _products(begins: Float32Array, following: Float32Array) -> Float32Array:
    possible = np.isfinite(begins)[:, None] & np.isfinite(following)
    with np.errstate(invalid="ignore"):
        products: Float32Array = np.where(possible, begins[:, None] * following, np.float32(-np.inf))
    return products


def _span(
    alignment: Alignment | None, words: Words | None, context: str | None, start: int, end: int, score: float
) -> Span:
    if alignment is None or words is None or context is None:
        return Span("", score, token_start=start, token_end=end + 1)
    firsts, lasts = words
    begin, finish = int(alignment.starts[firsts[start]]), int(alignment.ends[lasts[end]])
    return Span("", score, begin, finish, context[begin:finish], CONTEXT)


def _whole_words(alignment: Alignment) -> Words:
    """Returns the first and last position of each one's word, as far as its window has it of the context."""
    places = np.arange(len(alignment))
    inside = alignment.texts == CONTEXT
    begins = alignment.first_of_word | ~np.concatenate([[False], inside[:-1]])
    ends = np.concatenate([begins[1:] | ~inside[1:], [True]])
    firsts = np.maximum.accumulate(np.where(begins, places, 0))
    lasts = np.minimum.accumulate(np.where(ends, places, len(places))[::-1])[::-1]
    return firsts, lasts
