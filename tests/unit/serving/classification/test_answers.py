"""The answer spans are those of transformers' pipeline, on the same logits."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from electra_serve.presets.tokenizers.alignment import Alignment
from electra_serve.presets.tokenizers.bert_pipeline import (
    SPECIAL_TOKENS,
    BertConfig,
    make_bert_pipeline,
    make_bert_template,
    special_pieces,
)
from electra_serve.presets.tokenizers.steps import finish
from electra_serve.presets.tokenizers.transformers import TransformersTokenizer
from electra_serve.serving.classification.answers import find_answers
from electra_serve.serving.classification.results import Span, Window
from electra_serve.tensors import Encoding, Float32Array
from tests.data.answer_logits import answer_logits
from tests.data.reader import GOLDEN, VOCABULARY

CASES: list[dict[str, Any]] = json.loads((GOLDEN / "answers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer() -> TransformersTokenizer:
    pieces = VOCABULARY.read_text(encoding="utf-8").splitlines()
    config = BertConfig({piece: id_ for id_, piece in enumerate(pieces)}, special_pieces(SPECIAL_TOKENS))
    pipeline = make_bert_pipeline(config)
    return TransformersTokenizer(pipeline, make_bert_template(config, pipeline), splits_at_spaces=True)


def encoding(ids: list[int], segments: list[int], mask: list[int] | None = None) -> Encoding:
    ones = mask or [1] * len(ids)
    return Encoding(np.array(ids), np.array(segments), np.array(ones), len(ids), sum(ones))


def windows_of(tokenizer: TransformersTokenizer, case: dict[str, Any]) -> list[Window]:
    found = tokenizer.encode(
        [(case["question"], case["context"])], max_length=case["max_seq_len"], stride=case["doc_stride"], aligned=True
    )
    assert found.alignments is not None
    rows = zip(found.token_ids, found.segment_ids, found.alignments, strict=True)
    return [
        Window(answer_logits(ids.tolist()), encoding(ids.tolist(), segments.tolist()), alignment)
        for ids, segments, alignment in rows
    ]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_answer_spans_are_those_of_the_pipeline(tokenizer: TransformersTokenizer, case: dict[str, Any]) -> None:
    windows = windows_of(tokenizer, case)
    found = finish(
        find_answers(windows, case["context"], top_k=case["top_k"], max_length=case["max_answer_len"], raw=False)
    )
    assert [(answer.start, answer.end, answer.text) for answer in found] == [
        (answer["start"], answer["end"], answer["answer"]) for answer in case["answers"]
    ]
    assert [answer.score for answer in found] == pytest.approx(
        [answer["score"] for answer in case["answers"]], rel=1e-5
    )


def test_some_golden_contexts_have_several_windows(tokenizer: TransformersTokenizer) -> None:
    assert sum(len(windows_of(tokenizer, case)) > 1 for case in CASES) >= 3


def window(begins: list[float], ends: list[float], segments: list[int], mask: list[int] | None = None) -> Window:
    logits: Float32Array = np.array([begins, ends], np.float32).T
    return Window(logits, encoding(list(range(len(segments))), segments, mask))


def test_answer_spans_in_ids_are_positions_of_segment_1_without_the_last() -> None:
    ids = window([9, 9, 0, 1, 5, 0, 9], [9, 9, 0, 0, 2, 3, 9], [0, 0, 0, 1, 1, 1, 1])
    best, second = finish(find_answers([ids], None, top_k=2, max_length=2, raw=True))
    assert best == Span("", 8.0, token_start=4, token_end=6)
    assert second == Span("", 7.0, token_start=4, token_end=5)


def test_an_answer_span_is_no_longer_than_allowed_and_never_backwards() -> None:
    ids = window([0, 0, 5, 0, 0], [0, 5, 0, 4, 0], [0, 1, 1, 1, 1])
    (only,) = finish(find_answers([ids], None, top_k=1, max_length=1, raw=True))
    assert (only.token_start, only.token_end, only.score) == (1, 2, 5.0)
    (longer,) = finish(find_answers([ids], None, top_k=1, max_length=2, raw=True))
    assert (longer.token_start, longer.token_end, longer.score) == (2, 4, 9.0)


def test_masked_positions_hold_no_answer_span() -> None:
    ids = window([0, 0, 1, 0, 9], [0, 0, 1, 0, 9], [0, 1, 1, 1, 1], [1, 1, 1, 1, 0])
    (best,) = finish(find_answers([ids], None, top_k=1, max_length=3, raw=True))
    assert (best.token_start, best.token_end) == (2, 3)


def test_a_context_of_nothing_has_no_answer_span(tokenizer: TransformersTokenizer) -> None:
    case = {"question": "a", "context": " ", "max_seq_len": 9, "doc_stride": 1}
    assert finish(find_answers(windows_of(tokenizer, case), " ", top_k=3, max_length=5, raw=False)) == ()


def test_raw_scores_of_the_same_text_are_not_added(tokenizer: TransformersTokenizer) -> None:
    case = {"question": "a", "context": "the the the", "max_seq_len": 64, "doc_stride": 1}
    windows = windows_of(tokenizer, case)
    raw = finish(find_answers(windows, "the the the", top_k=9, max_length=1, raw=True))
    logits = windows[0].logits
    assert len(raw) == 1
    assert raw[0].score == pytest.approx(float(logits[windows[0].context].sum(axis=1).max()))


def test_a_span_is_widened_to_its_whole_words() -> None:
    """Each start and end, compared with a walk to the ends of the words."""
    generator = np.random.default_rng(0)
    length = 40
    texts = np.array([-1, 0, 0, -1, *[1] * (length - 5), -1], np.int32)
    first = generator.random(length) < 0.3  # also inside the context, whose first word may have begun before
    places = np.arange(length, dtype=np.int32)
    alignment = Alignment(texts=texts, starts=places, ends=places + 1, first_of_word=first)
    context = "abcdefghij" * 4
    for start, end in itertools.combinations_with_replacement(range(4, length - 1), 2):
        begin, finish_ = start, end
        while not first[begin] and texts[begin - 1] == 1:
            begin -= 1
        while texts[finish_ + 1] == 1 and not first[finish_ + 1]:
            finish_ += 1
        begins, ends = np.full(length, -9.0), np.full(length, -9.0)
        begins[start], ends[end] = 9, 9
        logits = np.array([begins, ends], np.float32).T
        made = Window(logits, encoding([1] * length, [0] * length), alignment)
        (found,) = finish(find_answers([made], context, top_k=1, max_length=length, raw=True))
        assert (found.start, found.end) == (begin, finish_ + 1)
