"""Labels of sequences: scores by each activation, the best first."""

from __future__ import annotations

import math

import numpy as np
import pytest

from electra_serve.presets.heads import HeadConfig, ScoreActivation
from electra_serve.presets.tokenizers.steps import finish
from electra_serve.serving.classification.labels import label_sequence
from electra_serve.serving.classification.step_runner import BLOCK_WORK

LOGITS = np.array([1.0, 3.0, -2.0], np.float32)
NAMES = ("a", "b", "c")


def head(activation: ScoreActivation, labels: tuple[str, ...] = NAMES) -> HeadConfig:
    return HeadConfig("sequence_classification", labels, activation)


def scores(activation: ScoreActivation, **options: object) -> dict[str, float]:
    found = finish(label_sequence(LOGITS, head(activation), **{"top_k": None, "raw": False, **options}))  # type: ignore[arg-type]
    return {label.label: label.score for label in found}


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("softmax", [math.exp(x) / sum(map(math.exp, (1, 3, -2))) for x in (1, 3, -2)]),
        ("sigmoid", [1 / (1 + math.exp(-x)) for x in (1, 3, -2)]),
        ("none", [1, 3, -2]),
    ],
)
def test_scores(activation: ScoreActivation, expected: list[float]) -> None:
    found = scores(activation)
    assert list(found) == ["b", "a", "c"]
    assert [found[name] for name in NAMES] == pytest.approx(expected)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_raw_scores_are_logits(activation: ScoreActivation) -> None:
    assert scores(activation, raw=True) == {"b": 3.0, "a": 1.0, "c": -2.0}


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (3, 3), (9, 3), (None, 3)])
def test_the_best_labels(top_k: int | None, count: int) -> None:
    assert list(scores("softmax", top_k=top_k)) == ["b", "a", "c"][:count]


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    found = finish(label_sequence(np.zeros(3, np.float32), head("softmax"), top_k=2, raw=False))
    assert [label.label for label in found] == ["a", "b"]


@pytest.mark.parametrize(("logit", "score"), [(200.0, 1.0), (-200.0, 0.0)])
def test_extreme_logits_do_not_overflow(logit: float, score: float) -> None:
    found = finish(label_sequence(np.array([logit], np.float32), head("sigmoid", ("x",)), top_k=None, raw=False))
    assert [label.score for label in found] == pytest.approx([score])


def test_many_labels_take_several_steps() -> None:
    many = HeadConfig("sequence_classification", tuple(map(str, range(1000))), "softmax")
    logits = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    steps = list(label_sequence(logits, many, top_k=None, raw=True))
    assert len(steps) > 3
    assert max(steps) <= BLOCK_WORK
    found = finish(label_sequence(logits, many, top_k=None, raw=True))
    assert [(label.label, label.score) for label in found] == [
        (str(at), float(logits[at])) for at in np.argsort(-logits).tolist()
    ]
