"""Weights of a preset; those that its files lack are initialized from a fixed seed.

They are drawn from one generator in the order of `weight_shapes`. So every engine computes the same at every start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.weight_files.names import counterparts, head_counterparts
from electra_serve.presets.weight_files.open import open_weights

INITIAL_STDDEV: Final = 0.02  # deviation of fresh matrices, as in the original ELECTRA

FRESH_SEED: Final = 0  # seed for presets that lack weights, or some of them


def weight_shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """The shape in Keras of every weight, by KerasHub's path, in the order that weights are drawn in.

    Example:
        >>> shapes = weight_shapes(BackboneConfig(100, 1, 4, hidden_dim=16, embedding_dim=8, intermediate_dim=32))
        >>> shapes["layers/transformer_encoder/_self_attention_layer/query_dense/vars/0"]
        (16, 4, 4)
        >>> shapes["layers/dense/vars/0"]
        (8, 16)
    """
    heads = (config.num_heads, config.hidden_dim // config.num_heads)  # (N, K)
    attention = {
        **{f"{name}_dense/vars/0": (config.hidden_dim, *heads) for name in ("query", "key", "value")},
        **{f"{name}_dense/vars/1": heads for name in ("query", "key", "value")},
        "output_dense/vars/0": (*heads, config.hidden_dim),
    }
    return {
        path: attention.get(path.partition("_self_attention_layer/")[2])
        or (tensor.shape[::-1] if tensor.transposed else tensor.shape)
        for path, tensor in counterparts(config).items()
    }


def read_weights(
    preset: PresetFolder, config: BackboneConfig, *, load_weights: bool
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Every weight of `preset` by its path, in the precision it is stored in, or float32 where it is drawn.

    Raises:
        PresetError: A weight file is not what it should be.
    """
    if not load_weights:
        yield from draw_weights(config)
        return
    generator = np.random.default_rng(FRESH_SEED)
    with open_weights(preset.format, preset.weight_files, config, preset.id) as arrays:
        for path, shape in weight_shapes(config).items():
            absent = path in arrays.absent
            yield path, _draw(path, shape, generator, INITIAL_STDDEV) if absent else arrays.read(path, shape)


def read_head_weights(preset: PresetFolder, *, load_weights: bool) -> Iterator[tuple[str, NDArray[Any]]]:
    """Every weight of the preset's head by its path, as `read_weights`; none without a head.

    Raises:
        PresetError: A weight file is not what it should be.
    """
    if preset.head is None:
        return
    shapes = {
        path: tensor.shape[::-1] if tensor.transposed else tensor.shape
        for path, tensor in head_counterparts(preset.head, preset.config).items()
    }
    if not load_weights:
        generator = np.random.default_rng(FRESH_SEED)
        yield from ((path, _draw(path, shape, generator, INITIAL_STDDEV)) for path, shape in shapes.items())
        return
    with open_weights(preset.format, preset.weight_files, preset.config, preset.id, preset.head) as arrays:
        for path, shape in shapes.items():
            yield path, arrays.read(path, shape)


def draw_weights(
    config: BackboneConfig, seed: int = FRESH_SEED, stddev: float = INITIAL_STDDEV
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Draws every weight, by its path: the same numbers for a seed on every backend, unlike Keras' initializers."""
    generator = np.random.default_rng(seed)
    for path, shape in weight_shapes(config).items():
        yield path, _draw(path, shape, generator, stddev)


def _draw(path: str, shape: tuple[int, ...], generator: np.random.Generator, stddev: float) -> NDArray[np.float32]:
    """A fresh value of one weight: matrices normal, cut at two deviations; biases 0; norms 1 and 0."""
    group, index = path.split("/vars/")
    if group.endswith(("layer_norm", "layer_normalization")):
        return np.full(shape, 1.0 if index == "0" else 0.0, np.float32)
    if index == "1":
        return np.zeros(shape, np.float32)
    drawn = generator.standard_normal(shape, np.float32)
    while (outside := np.abs(drawn) > 2).any():
        drawn[outside] = generator.standard_normal(int(outside.sum()), np.float32)
    return drawn * np.float32(stddev)
