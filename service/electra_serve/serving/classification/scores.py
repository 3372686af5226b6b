"""Logits to scores."""

from __future__ import annotations

import numpy as np

from electra_serve.presets.heads import ScoreActivation
from electra_serve.tensors import Float32Array


def activate(logits: Float32Array, activation: ScoreActivation) -> Float32Array:
    """Applies the activation along the last axis.

    Example:
        >>> activate(np.zeros(2, np.float32), "softmax").tolist(), activate(np.zeros(1, np.float32), "sigmoid").tolist()
        ([0.5, 0.5], [0.5])
    """
    match activation:
        case "softmax":
            return softmax(logits)
        case "sigmoid":
            return sigmoid(logits)
        case _:
            return logits


def softmax(logits: Float32Array) -> Float32Array:
    """Softmax along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Float32Array = powers / powers.sum(axis=-1, keepdims=True)
    return scores


def sigmoid(logits: Float32Array) -> Float32Array:
    """Sigmoid of each number; large ones of either sign do not overflow."""
    power = np.exp(-np.abs(logits))
    scores: Float32Array = np.where(logits >= 0, 1 / (1 + power), power / (1 + power))
    return scores
