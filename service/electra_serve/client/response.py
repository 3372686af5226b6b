"""Responses of both transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from electra_serve.tensors import Float32Array


@dataclass(frozen=True, slots=True, eq=False)
class EncodeResponse:
    """Response to one request for B sequences; arrays are float32 and read-only, None if not requested."""

    model: str  # name of the model
    tokens: int  # unmasked positions of all sequences
    truncated: tuple[bool, ...]  # True for each sequence that was truncated
    request_id: str  # id in the server's log
    # B arrays (T, H) with each sequence's length T; zeros where the padding mask is 0
    sequence_output: tuple[Float32Array, ...] | None = None
    pooled_output: Float32Array | None = None  # (B, H)
    cls_output: Float32Array | None = None  # (B, H)
    mean_output: Float32Array | None = None  # (B, H)
    embedding: Float32Array | None = None  # (B, H), as `ModelInfo.embedding` describes
    logits: Float32Array | None = None  # (B, L), of `ModelInfo.labels`
    # B arrays (T, L), of `ModelInfo.labels`; zeros where the padding mask is 0
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


@dataclass(frozen=True, slots=True, eq=False)
class EmbedResponse:
    """Response to one request to embed B texts."""

    model: str  # name of the model
    embeddings: Float32Array  # (B, D), read-only, of unit length
    tokens: int  # unmasked positions of all texts
    truncated: int  # texts that were truncated
    request_id: str  # id in the server's log


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document with its score."""

    index: int  # in the request
    score: float  # from 0 to 1, or the logit


@dataclass(frozen=True, slots=True)
class RerankResponse:
    """Response to one request to rerank documents."""

    model: str  # name of the model
    results: tuple[RankedDocument, ...]  # the best document first
    tokens: int  # unmasked positions of all pairs
    truncated: int  # documents that were truncated
    request_id: str  # id in the server's log


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
    """Computation of the output `embedding`."""

    pooling: str  # `mean` over the unmasked positions, or the first position, `cls`
    normalize: bool  # True if vectors have unit length
    prompts: Mapping[str, str]  # prefixes that the model was trained with, by name; clients add them to texts
    default_prompt: str  # name of the prompt for texts without one; "" if there is none


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Description of a model. Fields known only after loading are None before."""

    name: str
    preset: str
    state: str  # `loading`, `ready`, `failed` or `unloading`
    source: str | None = None  # `embedded`, `local`, `kaggle`, `hf` or `catalog`
    revision: str | None = None  # digest of the files
    weights: str | None = None  # `pretrained`, or `random`, which is for tests
    config: Mapping[str, float | str] | None = None  # hyperparameters of the backbone, with KerasHub's names
    parameters: int | None = None
    limits: RequestLimits | None = None
    engine: str | None = None
    device: str | None = None
    dtype: str | None = None  # type that it computes in; responses are float32
    replicas: int | None = None  # engines that share its queue
    text: bool | None = None  # True if it accepts texts
    load_seconds: float | None = None  # seconds from the start of the load to `ready`
    batch_shapes: tuple[ShapeCost, ...] = ()
    pooler: str | None = None  # origin of the layer behind `pooled_output`: `pretrained` or `random`
    # most positions of a batch of several sequences, with padding; 0 if each sequence runs alone
    batch_tokens: int | None = None
    aliases: tuple[str, ...] = ()  # other names in requests
    text_reason: str | None = None  # reason why it accepts no texts; None if it does
    embedding: EmbeddingConfig | None = None  # computation of the output `embedding`
    head: str | None = None  # kind of the head; "none" without one
    labels: tuple[str, ...] = ()  # names of the L logits
    activation: str | None = None  # function from logits to scores: `softmax`, `sigmoid` or `none`; None without a head
    problem_type: str | None = None  # training objective of the head, if known
