"""Initializers of weights."""

from __future__ import annotations

from collections.abc import Callable

import keras

from electra_serve.presets.weights import INITIAL_STDDEV

# makes a new initializer for each matrix: a shared one would repeat its numbers
KernelInitializer = Callable[[], keras.initializers.Initializer]


def truncated_normal() -> keras.initializers.Initializer:
    """Initializes a model to be trained."""
    return keras.initializers.TruncatedNormal(stddev=INITIAL_STDDEV)


def zeros() -> keras.initializers.Initializer:
    """Initializes a model whose weights are set next: 335 million random numbers take many seconds."""
    return keras.initializers.Zeros()
