"""How fresh weights are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import keras
import numpy as np
from numpy.typing import NDArray

from service.model.layout import weight_layout

if TYPE_CHECKING:
    from service.model.backbone import ElectraBackbone

INITIAL_STDDEV: Final = 0.02
"""As in the original ELECTRA."""


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


def draw(path: str, shape: tuple[int, ...], generator: np.random.Generator, stddev: float) -> NDArray[np.float32]:
    """A fresh value of one weight, as `randomise` draws it.

    Args:
        path: Where `weight_layout` has it: says what kind of weight it is.
        shape: Its shape.
        generator: What to draw from.
        stddev: Deviation of matrices.
    """
    group, index = path.split("/vars/")
    if group.endswith(("layer_norm", "layer_normalization")):
        return np.full(shape, 1.0 if index == "0" else 0.0, np.float32)
    if index == "1":
        return np.zeros(shape, np.float32)
    drawn = generator.standard_normal(shape, np.float32)
    while (outside := np.abs(drawn) > 2).any():
        drawn[outside] = generator.standard_normal(int(outside.sum()), np.float32)
    return drawn * np.float32(stddev)
