"""What may be told of a model: values for every transport, made by `electra_serve.serving.entry`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Self

from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.sentence_transformers import EmbeddingConfig


class ModelState(StrEnum):
    """Where a model is in its life."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADING = "unloading"


class Change(StrEnum):
    """What can be done to a model at run time."""

    LOAD = "load"
    RELOAD = "reload"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What one request to a model may carry.

    Attributes:
        max_sequences: Most sequences in one request.
        max_sequence_length: Longest sequence, in ids.
    """

    max_sequences: int
    max_sequence_length: int


@dataclass(frozen=True, slots=True)
class ShapeCost:
    """What a batch of one shape takes on one engine, as measured at warm-up.

    Attributes:
        rows: Rows of the batch.
        length: Positions of each row.
        seconds: Seconds of the engine.
    """

    rows: int
    length: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """All that a caller may know of a model.

    Attributes:
        name: The name requests use.
        preset: What it was loaded from, as the settings say it.
        state: Where it is in its life. Fields below that only loading can tell are None before READY.
        source: Where the files came from: `embedded`, `local`, `kaggle`, `hf`, `catalog` (a built-in config without
            weights).
        revision: Digest of the preset's files, or None.
        weights: `pretrained` or `random`.
        config: The backbone's hyperparameters.
        parameters: How many parameters it has.
        limits: What one request may carry.
        engine: The engine's name.
        device: Where it computes.
        dtype: What it computes in; answers are float32.
        replicas: Engines that share its queue.
        text: Whether it takes texts, that is, has a tokenizer.
        load_seconds: From the start of loading to READY.
        batch_shapes: The shapes of its batches, and how long each takes.
        pooler: `pretrained` or `random`: what the layer behind `pooled_output` is worth.
        batch_tokens: Most positions, padding included, that a batch of several sequences is given: what
            `batching.target_batch_s` allows by `batch_shapes`, or `batching.max_batch_tokens` if that is less. 0 if
            each sequence runs by itself.
        aliases: Other names that requests may use.
        text_reason: Why it takes no texts; None if it does.
        embedding: Computation of the output `embedding`.
    """

    name: str
    preset: str
    state: ModelState
    source: str | None = None
    revision: str | None = None
    weights: str | None = None
    config: BackboneConfig | None = None
    parameters: int | None = None
    limits: ModelLimits | None = None
    engine: str | None = None
    device: str | None = None
    dtype: str | None = None
    replicas: int | None = None
    text: bool | None = None
    load_seconds: float | None = None
    batch_shapes: tuple[ShapeCost, ...] | None = None
    pooler: str | None = None
    batch_tokens: int | None = None
    aliases: tuple[str, ...] = ()
    text_reason: str | None = None
    embedding: EmbeddingConfig | None = None


@dataclass(frozen=True, slots=True)
class ModelStatus(ModelInfo):
    """What who administers a model may know beside that.

    Attributes:
        change: What is being done to it right now.
        reason: Why it could not be loaded the last time, in one line; "" where it could. While `state` is `ready`, that
            was a reload, and what was there before still answers.
    """

    change: Change | None = None
    reason: str = ""

    @classmethod
    def of(cls, info: ModelInfo, *, change: Change | None, reason: str) -> Self:
        """`info` and the rest."""
        told = {field.name: getattr(info, field.name) for field in fields(info)}
        return cls(**told, change=change, reason=reason)
