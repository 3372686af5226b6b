"""A classification as JSON: large ones in pieces on a thread, with the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import orjson
import pytest

from electra_serve.api.rest.render import PIECE_ITEMS
from electra_serve.api.rest.render_classify import classify_pieces, render_classify
from electra_serve.presets.heads import HeadKind
from electra_serve.serving.classification.find import Found
from electra_serve.serving.classification.results import Label, Span
from electra_serve.serving.classify import ClassifyResult

T = TypeVar("T")


def result(head: HeadKind, *rows: Found) -> ClassifyResult:
    return ClassifyResult("tiny", head, rows, sequences=7, tokens=9, truncated=(False,) * len(rows))


def rendered(*found: bytes) -> dict[str, object]:
    content: dict[str, object] = orjson.loads(b"".join(found))
    return content


@pytest.mark.parametrize(
    ("head", "member", "row", "expected"),
    [
        ("sequence_classification", "labels", (Label("a", 0.1),), {"label": "a", "score": 0.1}),
        (
            "token_classification",
            "spans",
            (Span("a", 0.1, 0, 2, "né", 0),),
            {"label": "a", "score": 0.1, "start": 0, "end": 2, "text": "né", "part": 0},
        ),
        (
            "replaced_token_detection",
            "spans",
            (Span("replaced", 0.1, token_start=0, token_end=1),),
            {"label": "replaced", "score": 0.1, "token_start": 0, "token_end": 1},
        ),
        (
            "question_answering",
            "answers",
            (Span("", 0.1, 3, 4, "x", 1),),
            {"score": 0.1, "start": 3, "end": 4, "text": "x", "part": 1},
        ),
    ],
)
def test_each_head_has_its_member(head: HeadKind, member: str, row: Found, expected: dict[str, object]) -> None:
    assert rendered(*classify_pieces(result(head, row, ()))) == {
        "model": "tiny",
        "head": head,
        member: [[expected], []],
        "usage": {"sequences": 7, "tokens": 9},
        "truncated": [False, False],
    }


async def test_many_spans_are_rendered_on_a_thread_in_pieces() -> None:
    row = tuple(Span("a", 0.5, at, at + 1, "x" * 300, 0) for at in range(5 * PIECE_ITEMS + 1))
    large = result("token_classification", row, row[:1])
    steps: list[bytes] = []

    async def on_thread(work: Callable[[], T]) -> T:
        done = work()
        assert isinstance(done, bytes)
        steps.append(done)
        return done

    chunks = await render_classify(large, on_thread)
    assert steps == [*chunks, b""]
    assert len(chunks) > 1
    assert b"".join(chunks) == b"".join(classify_pieces(large))
    spans = rendered(*chunks)["spans"]
    assert isinstance(spans, list)
    assert [len(found) for found in spans] == [len(row), 1]


async def test_few_spans_are_rendered_at_once() -> None:
    async def on_thread(_: Callable[[], T]) -> T:
        raise AssertionError("not large")

    (chunk,) = await render_classify(result("sequence_classification", (Label("a", 1.0),)), on_thread)
    assert rendered(chunk)["labels"] == [[{"label": "a", "score": 1.0}]]
