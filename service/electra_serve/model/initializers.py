"""How fresh weights are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import numpy as np

from electra_serve.model.layout import weight_layout
from electra_serve.presets.weights import INITIAL_STDDEV, draw

if TYPE_CHECKING:
    from electra_serve.model.backbone import ElectraBackbone

KernelInitializer = Callable[[], keras.initializers.Initializer]
"""Makes a fresh initializer for each matrix: one that is shared would draw the same numbers again."""


def truncated_normal() -> keras.initializers.Initializer:
    """For a model that is to be trained."""
    return keras.initializers.TruncatedNormal(stddev=INITIAL_STDDEV)


def zeros() -> keras.initializers.Initializer:
    """For a model whose weights are set right after: drawing 335 million numbers takes many seconds."""
    return keras.initializers.Zeros()


def randomise(backbone: ElectraBackbone, seed: int, stddev: float = INITIAL_STDDEV) -> None:
    """Draws every weight anew: the same for a seed on every backend, which Keras' own initializers are not.

    Matrices are normal with deviation `stddev`, cut at two deviations; biases are 0; norms 1 and 0.
    """
    generator = np.random.default_rng(seed)
    for path, variable in weight_layout(backbone).items():
        variable.assign(draw(path, tuple(variable.shape), generator, stddev))
