"""How fresh weights are drawn."""

from __future__ import annotations

from collections.abc import Callable

import keras

from electra_serve.presets.weights import INITIAL_STDDEV

KernelInitializer = Callable[[], keras.initializers.Initializer]
"""Makes a fresh initializer for each matrix: one that is shared would draw the same numbers again."""


def truncated_normal() -> keras.initializers.Initializer:
    """For a model that is to be trained."""
    return keras.initializers.TruncatedNormal(stddev=INITIAL_STDDEV)


def zeros() -> keras.initializers.Initializer:
    """For a model whose weights are set right after: drawing 335 million numbers takes many seconds."""
    return keras.initializers.Zeros()
