"""Converts `ModelInfo` to its message."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.serving.model_info import ModelInfo, ModelLimits, ModelState

STATES: Final[Mapping[ModelState, pb.ModelState.ValueType]] = MappingProxyType(
    {
        ModelState.LOADING: pb.MODEL_STATE_LOADING,
        ModelState.READY: pb.MODEL_STATE_READY,
        ModelState.FAILED: pb.MODEL_STATE_FAILED,
        ModelState.UNLOADING: pb.MODEL_STATE_UNLOADING,
    }
)
WEIGHTS: Final[Mapping[str | None, pb.Weights.ValueType]] = MappingProxyType(
    {None: pb.WEIGHTS_UNSPECIFIED, "pretrained": pb.WEIGHTS_PRETRAINED, "random": pb.WEIGHTS_RANDOM}
)


def from_model_info(info: ModelInfo) -> pb.ModelInfo:
    """The message of `info`; what is None there is absent here."""
    return pb.ModelInfo(
        name=info.name,
        preset=info.preset,
        state=STATES[info.state],
        source=info.source,
        revision=info.revision,
        weights=WEIGHTS[info.weights],
        config=_config(info.config),
        parameters=info.parameters,
        limits=_limits(info.limits),
        engine=info.engine,
        device=info.device,
        dtype=info.dtype,
        replicas=info.replicas,
        text=info.text,
        load_seconds=info.load_seconds,
        batch_shapes=[
            pb.ShapeCost(rows=cost.rows, length=cost.length, seconds=cost.seconds) for cost in info.batch_shapes or ()
        ],
        pooler=WEIGHTS[info.pooler],
        batch_tokens=info.batch_tokens,
        aliases=info.aliases,
        text_reason=info.text_reason,
        embedding=_embedding(info.embedding),
        head=info.head,
        labels=info.labels,
        activation=info.activation,
        problem_type=info.problem_type,
    )


def _config(config: BackboneConfig | None) -> pb.BackboneConfig | None:
    if config is None:
        return None
    return pb.BackboneConfig(
        vocab_size=config.vocab_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        hidden_dim=config.hidden_dim,
        embedding_dim=config.embedding_dim,
        intermediate_dim=config.intermediate_dim,
        dropout=config.dropout,
        max_sequence_length=config.max_sequence_length,
        num_segments=config.num_segments,
        hidden_activation=config.hidden_activation,
    )


def _embedding(embedding: EmbeddingConfig | None) -> pb.EmbeddingConfig | None:
    if embedding is None:
        return None
    return pb.EmbeddingConfig(
        pooling=embedding.pooling,
        normalize=embedding.normalize,
        prompts=embedding.prompts,
        default_prompt=embedding.default_prompt,
    )


def _limits(limits: ModelLimits | None) -> pb.ModelLimits | None:
    if limits is None:
        return None
    return pb.ModelLimits(max_sequences=limits.max_sequences, max_sequence_length=limits.max_sequence_length)
