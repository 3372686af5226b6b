"""Descriptions of models for every transport; `electra_serve.serving.entry` fills them in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Self

from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.sentence_transformers import EmbeddingConfig


class ModelState(StrEnum):
    """State of a model."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADING = "unloading"


class Change(StrEnum):
    """Operation on a model at run time."""

    LOAD = "load"
    RELOAD = "reload"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Most sequences of a request, and most ids of a sequence."""

    max_sequences: int
    max_sequence_length: int


@dataclass(frozen=True, slots=True)
class ShapeCost:
    """Seconds that one engine takes for a batch of `rows` rows of `length` positions, measured at warm-up."""

    rows: int
    length: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Description of a model for clients. Fields known only after loading are None before.

    Attributes:
        source: `embedded`, `local`, `kaggle`, `hf`, or `catalog` for a built-in config without weights.
        revision: Digest of the preset's files.
        weights: `pretrained` or `random`.
        parameters: Number of parameters.
        dtype: Type that it computes in; responses are float32.
        replicas: Engines that share its queue.
        text: True if it accepts texts, that is, has a tokenizer.
        load_seconds: Seconds from the start of the load to READY.
        pooler: Origin of the layer behind `pooled_output`: `pretrained` or `random`.
        batch_tokens: Most positions of a batch of several sequences, with padding; 0 if each sequence runs alone.
            Set by `batching.target_batch_s` and `batch_shapes`, and by `batching.max_batch_tokens`.
        text_reason: Reason why it accepts no texts; None if it does.
        embedding: Computation of the output `embedding`.
        head: Kind of the head; "none" without one, and marked if it is left out.
        labels: Names of the L logits.
        activation: Function from logits to scores: `softmax`, `sigmoid` or `none`. None without a head.
        problem_type: Training objective of the head, if its files name it.
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
    head: str | None = None
    labels: tuple[str, ...] = ()
    activation: str | None = None
    problem_type: str | None = None


@dataclass(frozen=True, slots=True)
class ModelStatus(ModelInfo):
    """Description of a model for administrators.

    Attributes:
        change: Operation in progress.
        reason: Reason of the last failed operation in one line; "" after a success. If `state` is READY, a reload
            failed and the previous model is still served.
    """

    change: Change | None = None
    reason: str = ""

    @classmethod
    def of(cls, info: ModelInfo, *, change: Change | None, reason: str) -> Self:
        """Extends `info`."""
        known = {field.name: getattr(info, field.name) for field in fields(info)}
        return cls(**known, change=change, reason=reason)


ModelInfos = Callable[[], Sequence[ModelInfo]]  # describes every model; called for errors only
