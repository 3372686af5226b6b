"""What comes out of a client, the same for every transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from electra_serve.tensors import Float32Array


@dataclass(frozen=True, slots=True, eq=False)
class EncodeResponse:
    """The answer to one request. Arrays are float32 and read-only; what was not asked for is None.

    B is the number of sequences, T one sequence's length, H the model's hidden width.

    Attributes:
        model: The model that computed it.
        sequence_output: B arrays (T, H), T each sequence's own; zeros where the padding mask is 0.
        pooled_output: (B, H).
        cls_output: (B, H).
        mean_output: (B, H).
        embedding: (B, H), as `ModelInfo.embedding` says.
        tokens: Positions over all sequences where the padding mask is 1.
        truncated: For each sequence, whether it was cut.
        request_id: What the server's log calls the request.
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


@dataclass(frozen=True, slots=True)
class RequestLimits:
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
        rows: Rows of the batch, each of which holds several sequences.
        length: Positions of each row.
        seconds: Seconds of the engine.
    """

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
    """What the server tells of a model. What only loading can tell is None before its state is `ready`.

    Attributes:
        name: The name requests use.
        preset: What it was loaded from.
        state: `loading`, `ready`, `failed` or `unloading`.
        source: Where the files came from.
        revision: Digest of the files.
        weights: `pretrained`, or `random`, which is good for tests only.
        config: The backbone's hyperparameters under KerasHub's names.
        parameters: How many parameters it has.
        limits: What one request may carry.
        engine: What computes.
        device: Where it computes.
        dtype: What it computes in.
        replicas: Engines that share its queue.
        text: Whether it takes texts.
        load_seconds: From the start of loading to ready.
        batch_shapes: The shapes of its batches, and how long each takes.
        pooler: `pretrained`, or `random`: what the layer behind `pooled_output` is worth.
        batch_tokens: Most positions, padding included, that a batch of several sequences is given; 0 where each runs by
            itself.
        aliases: Other names that requests may use.
        text_reason: Why it takes no texts; None if it does.
        embedding: Computation of the output `embedding`.
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
