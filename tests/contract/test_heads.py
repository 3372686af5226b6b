"""Logits reach clients of every transport, and a model rejects outputs that it does not have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import numpy as np
import pytest

from electra_serve.presets.heads import HeadConfig
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import Output
from tests.contract.outcome import assert_same, rejected, succeeded
from tests.contract.query import Query
from tests.contract.sides import ALL_SIDES, connect
from tests.contract.stack import Stack, make_settings

SENTIMENT, TAGS = "sentiment", "tags"
HEADS: Final = {
    SENTIMENT: HeadConfig("sequence_classification", ("bad", "good", "neither"), "softmax"),
    TAGS: HeadConfig("token_classification", ("O", "B"), "softmax"),
}
ROWS: Final = [[5, 6, 7], [8]]
MASK: Final = [[1, 0, 1], [1]]


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    settings = make_settings()
    models = (*settings.models, *(ModelSettings(preset=name) for name in HEADS))
    built = Stack.build(settings.model_copy(update={"models": models}), heads=HEADS)
    await built.manager.load_all()
    yield built
    await built.manager.close()


@pytest.mark.parametrize("name", ALL_SIDES)
async def test_logits_of_sequences(stack: Stack, name: str) -> None:
    query = Query(token_ids=ROWS, padding_mask=MASK, outputs=[Output.LOGITS, Output.CLS]).of(SENTIMENT)
    async with connect(stack, name) as side:
        answer = succeeded(await side.send(side.render(query)))
    assert answer.outputs.keys() == {Output.LOGITS, Output.CLS}
    assert [row.tolist() for row in answer.outputs[Output.LOGITS]] == [[5, 10, 15], [8, 16, 24]]
    assert [row.tolist() for row in answer.outputs[Output.CLS]] == [[5] * 4, [8] * 4]


@pytest.mark.parametrize("name", ALL_SIDES)
async def test_logits_of_positions(stack: Stack, name: str) -> None:
    query = Query(token_ids=[*ROWS, [9, 0, 0]], padding_mask=[*MASK, [1, 0, 0]], outputs=[Output.TOKEN_LOGITS]).of(TAGS)
    async with connect(stack, name) as side:
        answer = succeeded(await side.send(side.render(query)))
    expected = [np.array(row) for row in ([[5, 10], [0, 0], [7, 14]], [[8, 16]], [[9, 18], [0, 0], [0, 0]])]
    assert_same(answer.outputs, {Output.TOKEN_LOGITS: expected}, padded=answer.padded)


@pytest.mark.parametrize("name", ALL_SIDES)
@pytest.mark.parametrize(
    ("model", "output", "message"),
    [
        ("tiny", Output.LOGITS, "outputs of model tiny, whose head is none, must be among sequence_output"),
        (TAGS, Output.LOGITS, "whose head is token_classification, must be among sequence_output"),
        (SENTIMENT, Output.TOKEN_LOGITS, "mean_output, embedding, logits; got token_logits"),
    ],
)
async def test_a_model_names_its_outputs(stack: Stack, name: str, model: str, output: Output, message: str) -> None:
    query = Query(token_ids=ROWS, outputs=[Output.MEAN, output]).of(model)
    async with connect(stack, name) as side:
        rejection = rejected(await side.send(side.render(query)))
    assert (rejection.code, rejection.field) == ("invalid_input", "outputs")
    assert message in rejection.message
    assert stack.engines[model].batches == []


async def test_models_are_described_with_their_heads(stack: Stack) -> None:
    described = {info.name: (info.head, info.labels, info.activation) for info in stack.service.models()}
    assert described[SENTIMENT] == ("sequence_classification", ("bad", "good", "neither"), "softmax")
    assert described[TAGS] == ("token_classification", ("O", "B"), "softmax")
    assert described["tiny"] == ("none", (), None)
