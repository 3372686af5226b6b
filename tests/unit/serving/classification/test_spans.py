"""Labeled spans: aggregation, pairs, windows, ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.tokenizers.alignment import Alignment
from electra_serve.presets.tokenizers.keras_hub import KerasTokenizer, TokenizerConfig
from electra_serve.presets.tokenizers.pairs import TextOrPair
from electra_serve.presets.tokenizers.steps import finish
from electra_serve.serving.classification.results import Span, Window
from electra_serve.serving.classification.spans import Texts, label_spans, score_tokens
from electra_serve.serving.classification.step_runner import BLOCK_WORK
from electra_serve.tensors import Aggregation, Encoding

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "verb")
HEAD = HeadConfig("token_classification", LABELS, "softmax")
PIECES = ["[UNK]", "[CLS]", "[SEP]", "anna", "##bel", "lee", "paris", "runs", ".", "日", "e"]
TOKENIZER = KerasTokenizer(PIECES, TokenizerConfig(lowercase=True, strip_accents=True))
NONE, FIRST, SIMPLE = Aggregation.NONE, Aggregation.FIRST, Aggregation.SIMPLE


def windows(text: TextOrPair, labels: Sequence[str], *, stride: int | None = None, longest: int = 99) -> list[Window]:
    """Windows of a text whose tokens, [CLS] and [SEP] included, have these labels with logit 5, and others 0."""
    found = TOKENIZER.encode([text], max_length=longest, stride=stride, aligned=True)
    assert found.alignments is not None
    made = []
    remaining = list(labels)
    for ids, segments, alignment in zip(found.token_ids, found.segment_ids, found.alignments, strict=True):
        here, remaining = remaining[: len(ids)], remaining[len(ids) :]
        made.append(Window(logits(here), encoding(ids.tolist(), segments.tolist()), alignment))
    assert not remaining
    return made


def logits(labels: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rows = np.zeros((len(labels), len(LABELS)), np.float32)
    rows[range(len(labels)), [LABELS.index(label) for label in labels]] = 5
    return rows


def encoding(ids: list[int], segments: list[int], mask: list[int] | None = None) -> Encoding:
    ones = mask or [1] * len(ids)
    return Encoding(np.array(ids), np.array(segments), np.array(ones), len(ids), sum(ones))


def found(
    made: list[Window], texts: Texts | None, aggregation: Aggregation, *, raw: bool = True
) -> list[tuple[str, str | None]]:
    return [(span.label, span.text) for span in finish(label_spans(made, HEAD, texts, aggregation, raw=raw))]


TEXT = "Annabel Lee runs"
TAGS = ("verb", "B-PER", "I-PER", "I-PER", "verb", "verb")


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (NONE, [("B-PER", "Anna"), ("I-PER", "bel"), ("I-PER", "Lee"), ("verb", "runs")]),
        (SIMPLE, [("PER", "Annabel Lee"), ("verb", "runs")]),
        (FIRST, [("PER", "Annabel Lee"), ("verb", "runs")]),
    ],
)
def test_aggregation(aggregation: Aggregation, expected: list[tuple[str, str]]) -> None:
    assert found(windows(TEXT, TAGS), (TEXT,), aggregation) == expected


def test_first_decides_for_the_whole_word_and_simple_does_not() -> None:
    made = windows("Annabel", ("O", "B-PER", "I-LOC", "O"))
    assert found(made, ("Annabel",), SIMPLE) == [("PER", "Anna"), ("LOC", "bel")]
    assert found(made, ("Annabel",), FIRST) == [("PER", "Annabel")]


def test_a_second_beginning_begins_a_second_span() -> None:
    made = windows("Lee Lee", ("O", "B-PER", "B-PER", "O"))
    assert found(made, ("Lee Lee",), SIMPLE) == [("PER", "Lee"), ("PER", "Lee")]


def test_labels_without_a_prefix_are_joined_and_outside_ones_part() -> None:
    made = windows("runs runs . runs", ("O", "verb", "verb", "O", "verb", "O"))
    assert found(made, ("runs runs . runs",), SIMPLE) == [("verb", "runs runs"), ("verb", "runs")]


def test_scores_are_means_of_probabilities_or_logits() -> None:
    made = windows("Lee Lee", ("O", "B-PER", "I-PER", "O"))
    made[0].logits[2] *= 2
    probabilities = [np.exp(logit) / (np.exp(logit) + 5) for logit in (5, 10)]
    (span,) = finish(label_spans(made, HEAD, ("Lee Lee",), SIMPLE, raw=False))
    assert span.score == pytest.approx(np.mean(probabilities))
    (raw,) = finish(label_spans(made, HEAD, ("Lee Lee",), SIMPLE, raw=True))
    assert raw.score == 7.5


@pytest.mark.parametrize("text", ["Ánnäbel Lée", "A\u0301nna\u0308bel Le\u0301e"])
def test_accents_are_inside_their_span(text: str) -> None:
    made = windows(text, ("O", "B-PER", "I-PER", "I-PER", "O"))
    assert found(made, (text,), FIRST) == [("PER", text)]


def test_ideographs_and_emoji_are_where_they_are() -> None:
    text = "😀😀 日Lee"
    made = windows(text, ("O", "O", "B-LOC", "B-PER", "O"))
    assert finish(label_spans(made, HEAD, (text,), SIMPLE, raw=True)) == (
        Span("LOC", 5.0, 3, 4, "日", 0),
        Span("PER", 5.0, 4, 7, "Lee", 0),
    )


def test_a_span_does_not_reach_into_the_second_text() -> None:
    made = windows(("Anna", "##bel lee"), ("O", "B-PER", "O", *["I-PER"] * 4, "O"))
    texts = ("Anna", "##bel lee")
    spans = finish(label_spans(made, HEAD, texts, FIRST, raw=True))
    assert [(span.text, span.part) for span in spans] == [("Anna", 0), ("##bel lee", 1)]


def test_ids_have_positions_only_and_masked_ones_no_label() -> None:
    made = [Window(logits(["B-PER", "I-PER", "verb", "verb"]), encoding([1, 2, 3, 4], [0] * 4, [1, 1, 1, 0]))]
    assert finish(label_spans(made, HEAD, None, SIMPLE, raw=True)) == (
        Span("PER", 5.0, token_start=0, token_end=2),
        Span("verb", 5.0, token_start=2, token_end=3),
    )


def test_of_overlapping_windows_the_longest_span_is_kept() -> None:
    text = "runs runs Lee Lee runs runs"
    cls, sep = "O", "O"
    made = windows(
        text,
        (cls, "verb", "O", "B-PER", sep, cls, "B-PER", "I-PER", "O", sep, cls, "O", "verb", sep),
        stride=1,
        longest=5,
    )
    assert len(made) == 3
    assert found(made, (text,), SIMPLE) == [("verb", "runs"), ("PER", "Lee Lee"), ("verb", "runs")]


def test_of_equal_spans_the_better_score_is_kept() -> None:
    text = "runs Lee runs"
    made = windows(text, ("O", "O", "verb", "O", "O", "B-PER", "O", "O"), stride=1, longest=4)
    made[1].logits[1] *= 2
    (span,) = finish(label_spans(made, HEAD, (text,), SIMPLE, raw=True))
    assert (span.label, span.text, span.score) == ("PER", "Lee", 10.0)


def test_every_token_has_a_probability_of_having_been_replaced() -> None:
    head = HeadConfig("replaced_token_detection", ("replaced",), "sigmoid")
    (made,) = windows("Lee runs", ("O",) * 4)
    window = Window(np.array([[9], [0], [np.log(3)], [9]], np.float32), made.encoding, made.alignment)
    spans = finish(score_tokens(window, head, ("Lee runs",), raw=False))
    assert [(span.label, span.start, span.end, span.text) for span in spans] == [
        ("replaced", 0, 3, "Lee"),
        ("replaced", 4, 8, "runs"),
    ]
    assert [span.score for span in spans] == pytest.approx([0.5, 0.75])


def test_a_window_may_begin_inside_a_word() -> None:
    one = np.ones(3, np.int32)
    alignment = Alignment(one * 0, np.array([4, 8, 9]), np.array([7, 9, 12]), np.array([False, True, False]))
    window = Window(logits(["B-PER", "B-LOC", "O"]), encoding([4, 5, 6], [0] * 3), alignment)
    assert [span.label for span in finish(label_spans([window], HEAD, ("x" * 12,), FIRST, raw=True))] == ["PER", "LOC"]


@pytest.mark.parametrize("labels", [2, 3000])
def test_spans_do_not_depend_on_the_steps(labels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of positions give the same as all at once, and are bounded by positions times labels."""
    generator = np.random.default_rng(0)
    head = HeadConfig("token_classification", tuple(f"I-{label % 7}" for label in range(labels)), "softmax")
    made = Window(generator.standard_normal((400, labels)).astype(np.float32), encoding([1] * 400, [0] * 400))
    steps = list(label_spans([made], head, None, NONE, raw=False))
    assert max(steps) <= BLOCK_WORK
    in_blocks = finish(label_spans([made], head, None, NONE, raw=False))
    monkeypatch.setattr("electra_serve.serving.classification.spans.BLOCK_WORK", 2**40)
    assert finish(label_spans([made], head, None, NONE, raw=False)) == in_blocks
    assert max(label_spans([made], head, None, NONE, raw=False)) > BLOCK_WORK
