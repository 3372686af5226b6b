"""Models as messages."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest

from electra_serve.api.grpc.model_info import STATES, from_model_info
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.serving.model_info import ModelInfo, ModelLimits, ModelState
from tests.fake_service import CONFIG, LOADING, READY


def test_a_ready_model_is_described_completely() -> None:
    message = from_model_info(READY)
    assert {field.name for field, _ in message.ListFields()} == {field.name for field in fields(ModelInfo)}
    assert (message.state, message.weights, message.pooler) == (
        pb.MODEL_STATE_READY,
        pb.WEIGHTS_RANDOM,
        pb.WEIGHTS_RANDOM,
    )
    assert {f.name: getattr(message.config, f.name) for f in fields(BackboneConfig)} == asdict(CONFIG)
    assert (message.limits.max_sequences, message.limits.max_sequence_length) == (8, 512)
    assert [(cost.rows, cost.length, cost.seconds) for cost in message.batch_shapes] == [(1, 16, 1e-3), (4, 128, 1e-2)]
    assert (message.parameters, message.batch_tokens) == (CONFIG.parameters, 4096)
    assert (message.embedding.pooling, message.embedding.normalize) == ("cls", True)
    assert (dict(message.embedding.prompts), message.embedding.default_prompt) == ({"query": "query: "}, "query")


def test_a_loading_model_is_described_without_unknown_fields() -> None:
    assert {field.name for field, _ in from_model_info(LOADING).ListFields()} == {"name", "preset", "state"}


@pytest.mark.parametrize(
    ("message", "own"),
    [
        (pb.ModelInfo, ModelInfo),
        (pb.BackboneConfig, BackboneConfig),
        (pb.ModelLimits, ModelLimits),
        (pb.EmbeddingConfig, EmbeddingConfig),
    ],
)
def test_messages_have_the_fields_of_the_service_s_own_types(message: type[pb.ModelInfo], own: type[ModelInfo]) -> None:
    assert [field.name for field in message.DESCRIPTOR.fields] == [field.name for field in fields(own)]


def test_every_state_has_a_value() -> None:
    assert set(STATES) == set(ModelState)
    assert set(STATES.values()) == set(pb.ModelState.values()) - {pb.MODEL_STATE_UNSPECIFIED}
