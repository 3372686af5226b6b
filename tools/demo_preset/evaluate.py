"""Measures teacher and student on hand-written texts, and their agreement on texts that were not trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DATA: Final = Path(__file__).parents[2] / "tests/data/demo_quality.json"
RANKS: Final = (1, 3, 10, 100, 1000)  # of the partners of a held-out text, by the teacher

Embed = Callable[[list[str]], NDArray[np.float32]]  # to normalized rows


def figures(embed: Embed, data: dict[str, Any]) -> dict[str, float]:
    """Shares of triples in the right order, and of questions whose own response is the nearest."""
    anchors, positives, negatives = (embed(list(texts)) for texts in zip(*data["triples"], strict=True))
    questions, answers = (embed(list(texts)) for texts in zip(*data["questions"], strict=True))
    right = (anchors * positives).sum(1) > (anchors * negatives).sum(1)
    found = (questions @ answers.T).argmax(1) == np.arange(len(questions))
    return {"triples": round(float(right.mean()), 4), "accuracy_at_1": round(float(found.mean()), 4)}


def spearman(embed: Embed, teacher: Embed, texts: list[str]) -> float:
    """Rank correlation of cosines, of pairs of `texts` from near to far."""
    theirs, ours = teacher(texts), embed(texts)
    cosines = theirs @ theirs.T
    partners = np.argsort(-cosines, axis=1)[:, RANKS]
    rows = np.arange(len(texts))[:, None]
    return _correlation(cosines[rows, partners].ravel(), (ours @ ours.T)[rows, partners].ravel())


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    first, second = (np.argsort(np.argsort(values)).astype(np.float64) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def store_teacher(teacher: Embed) -> dict[str, Any]:
    """Writes the teacher's figures next to the texts; returns the content of the file."""
    content: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    content["teacher"] = figures(teacher, content)
    DATA.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return content
