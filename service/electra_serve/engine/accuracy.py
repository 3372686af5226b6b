"""Compares an engine's outputs with a reference, by measures that users of embeddings notice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from electra_serve.engine.base import Engine
from electra_serve.tensors import HEAD_OUTPUTS, Batch, Encoding, Float32Array, Output


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of an engine with a reference."""

    texts: int
    token_cosine: float  # least cosine of a position's hidden state
    mean_cosine: float  # least cosine of a text's `mean_output`
    same_neighbor: float  # share of texts with the same nearest neighbor by `mean_output`
    same_label: float | None = None  # share of texts, or of positions, with the same best label; None without a head


def agreement(engine: Engine, reference: Engine, encodings: Sequence[Encoding]) -> Agreement:
    """Compares the outputs for `encodings`, at least two, one at a time."""
    pairs = [(_encode(engine, encoding), _encode(reference, encoding)) for encoding in encodings]
    labels = [_labels(ours[2]) == _labels(theirs[2]) for ours, theirs in pairs]
    tokens = [_cosines(ours[0], theirs[0]).min() for ours, theirs in pairs]
    means, expected = (np.stack([pair[side][1] for pair in pairs]) for side in (0, 1))  # (N, H)
    return Agreement(
        texts=len(encodings),
        token_cosine=float(min(tokens)),
        mean_cosine=float(_cosines(means, expected).min()),
        same_neighbor=float((_neighbors(means) == _neighbors(expected)).mean()),
        same_label=float(np.concatenate(labels).mean()) if any(same.size for same in labels) else None,
    )


def _encode(engine: Engine, encoding: Encoding) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Returns the hidden states of unmasked positions, (T, H), their mean, (H,), and logits, (N, L); N may be 0."""
    of_head = engine.signature.outputs & HEAD_OUTPUTS
    outputs = frozenset({Output.SEQUENCE, Output.MEAN}) | of_head
    batch = Batch.one_per_row([encoding], engine.signature.single_row(encoding.compute_length))
    row = engine.run(batch, outputs).extract(batch.placements[0], encoding, outputs)
    attended = encoding.padding_mask == 1
    logits = np.zeros((0, 1), np.float32)
    if Output.LOGITS in of_head:
        logits = row.get(Output.LOGITS)[None]
    elif of_head:
        logits = row.get(Output.TOKEN_LOGITS)[attended]
    return row.get(Output.SEQUENCE)[attended], row.get(Output.MEAN), logits


def _labels(logits: Float32Array) -> NDArray[np.intp]:
    """Returns the best label of each row; with one label, whether it is more likely than not."""
    best = logits.argmax(axis=1) if logits.shape[1] > 1 else logits[:, 0] > 0
    return np.asarray(best, np.intp)  # (N,)


def _cosines(a: Float32Array, b: Float32Array) -> Float32Array:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / norms, np.float32)  # (N,)


def _neighbors(vectors: Float32Array) -> Float32Array:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    return np.asarray(similar.argmax(axis=1))  # (N,)
