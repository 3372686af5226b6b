"""Responses of both transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from electra_serve.tensors import Float32Array


@dataclass(frozen=True, slots=True, eq=False)
class EncodeResponse:
    """Response to one request for B sequences; arrays are float32 and read-only, None if not requested.

    Attributes:
        model: Name of the model.
        sequence_output: B arrays (T, H) with each sequence's length T; zeros where the padding mask is 0.
        pooled_output: (B, H).
        cls_output: (B, H).
        mean_output: (B, H).
        embedding: (B, H), as `ModelInfo.embedding` describes.
        logits: (B, L), of `ModelInfo.labels`.
        token_logits: B arrays (T, L), of `ModelInfo.labels`; zeros where the padding mask is 0.
        tokens: Unmasked positions of all sequences.
        truncated: True for each sequence that was truncated.
        request_id: Id in the server's log.
    """

    model: str
    tokens: int
    truncated: tuple[bool, ...]
    request_id: str
    sequence_output: tuple[Float32Array, ...] | None = None
    pooled_output: Float32Array | None = None
    cls_output: Float32Array | None = None
    mean_output: Float32Array | None = None
    embedding: Float32Array | None = None
    logits: Float32Array | None = None
    token_logits: tuple[Float32Array, ...] | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """Label of a sequence."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Span:
    """Labeled span of a sequence, or an answer span, whose label is "".

    Attributes:
        start: First character; None if the request had ids, as are the next three.
        end: The character after the last one.
        text: These characters.
        part: Text of a pair that has the span, 0 or 1; 0 for a single text.
        token_start: First position of the ids; None if the request had texts.
        token_end: The position after the last one; None if the request had texts.
    """

    label: str
    score: float
    start: int | None = None
    end: int | None = None
    text: str | None = None
    part: int | None = None
    token_start: int | None = None
    token_end: int | None = None


@dataclass(frozen=True, slots=True)
class ClassifyResponse:
    """Response to one request for B sequences; the head fills one of `labels`, `spans` and `answers`.

    Attributes:
        model: Name of the model.
        head: Kind of its head, as in `ModelInfo`.
        tokens: Unmasked positions of all sequences, windows included.
        truncated: True for each sequence that was truncated.
        request_id: Id in the server's log.
        labels: Labels of each sequence, the best first.
        spans: Labeled spans of each sequence, in order.
        answers: Answer spans of each sequence, the best first.
    """

    model: str
    head: str
    tokens: int
    truncated: tuple[bool, ...]
    request_id: str
    labels: tuple[tuple[Label, ...], ...] = ()
    spans: tuple[tuple[Span, ...], ...] = ()
    answers: tuple[tuple[Span, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class RequestLimits:
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
class EmbeddingConfig:
    """Computation of the output `embedding`.

    Attributes:
        pooling: `mean` over the unmasked positions, or the first position, `cls`.
        normalize: True if vectors have unit length.
        prompts: Prefixes that the model was trained with, by name; clients add them to texts.
        default_prompt: Name of the prompt for texts without one; "" if there is none.
    """

    pooling: str
    normalize: bool
    prompts: Mapping[str, str]
    default_prompt: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Description of a model. Fields known only after loading are None before.

    Attributes:
        state: `loading`, `ready`, `failed` or `unloading`.
        source: `embedded`, `local`, `kaggle`, `hf` or `catalog`.
        revision: Digest of the files.
        weights: `pretrained`, or `random`, which is for tests.
        config: Hyperparameters of the backbone, with KerasHub's names.
        dtype: Type that it computes in; responses are float32.
        replicas: Engines that share its queue.
        text: True if it accepts texts.
        load_seconds: Seconds from the start of the load to `ready`.
        pooler: Origin of the layer behind `pooled_output`: `pretrained` or `random`.
        batch_tokens: Most positions of a batch of several sequences, with padding; 0 if each sequence runs alone.
        aliases: Other names in requests.
        text_reason: Reason why it accepts no texts; None if it does.
        embedding: Computation of the output `embedding`.
        head: Kind of the head; "none" without one.
        labels: Names of the L logits.
        activation: Function from logits to scores: `softmax`, `sigmoid` or `none`; None without a head.
        problem_type: Training objective of the head, if known.
    """

    name: str
    preset: str
    state: str
    source: str | None = None
    revision: str | None = None
    weights: str | None = None
    config: Mapping[str, float | str] | None = None
    parameters: int | None = None
    limits: RequestLimits | None = None
    engine: str | None = None
    device: str | None = None
    dtype: str | None = None
    replicas: int | None = None
    text: bool | None = None
    load_seconds: float | None = None
    batch_shapes: tuple[ShapeCost, ...] = ()
    pooler: str | None = None
    batch_tokens: int | None = None
    aliases: tuple[str, ...] = ()
    text_reason: str | None = None
    embedding: EmbeddingConfig | None = None
    head: str | None = None
    labels: tuple[str, ...] = ()
    activation: str | None = None
    problem_type: str | None = None
