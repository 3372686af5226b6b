"""Agreement is complete for the same engine, and shows the difference of others."""

from __future__ import annotations

import numpy as np
import pytest

from electra_serve.engine.accuracy import agreement
from electra_serve.presets.heads import HeadConfig
from electra_serve.tensors import Batch, Encoding, ModelOutput, Outputs
from tests.fakes import FakeEngine


class Turned(FakeEngine):
    """Returns negated outputs."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        output = super().run(batch, outputs)
        return ModelOutput(**{name: -getattr(output, name) for name in outputs})


def encodings() -> list[Encoding]:
    rows = [np.arange(1, 2 + length, dtype=np.int32) * (3 + length) for length in range(5)]
    return [Encoding(row, row * 0, row * 0 + 1, len(row), len(row)) for row in rows]


def test_with_itself() -> None:
    found = agreement(FakeEngine(), FakeEngine(), encodings())
    assert (found.texts, found.same_neighbor) == (5, 1.0)
    assert found.token_cosine == pytest.approx(1)
    assert found.mean_cosine == pytest.approx(1)


def test_with_its_opposite() -> None:
    found = agreement(Turned(), FakeEngine(), encodings())
    assert found.token_cosine == pytest.approx(-1)
    assert found.mean_cosine == pytest.approx(-1)


HEADS = {
    "sequences": HeadConfig("sequence_classification", ("a", "b"), "softmax"),
    "one label": HeadConfig("sequence_classification", ("a",), "sigmoid"),
    "tokens": HeadConfig("token_classification", ("a", "b", "c"), "softmax"),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_labels_are_compared_if_there_is_a_head(head: HeadConfig) -> None:
    engine, opposite = FakeEngine(head=head), Turned(head=head)
    assert agreement(engine, engine, encodings()).same_label == 1.0
    assert agreement(opposite, engine, encodings()).same_label == 0.0
    assert agreement(FakeEngine(), FakeEngine(), encodings()).same_label is None
