"""Assigns weights to a model's variables: from a preset's files, or random ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras
from numpy.typing import ArrayLike

from electra_serve.errors import PresetError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.weights import read_weights


def restore(
    variables: Mapping[str, keras.Variable], preset: PresetFolder, config: BackboneConfig, *, load_weights: bool = True
) -> None:
    """Sets every variable, by `weights_by_path`, from the preset's files or to random values.

    Raises:
        PresetError: A file is missing, truncated, of another format or shape, or has non-finite values.
    """
    if preset.artifact is not None:
        raise PresetError(f"{preset.id} is a compiled artifact without weights; use {preset.artifact.preset}")
    assign(variables, read_weights(preset, config, load_weights=load_weights))


def assign(variables: Mapping[str, keras.Variable], values: Iterable[tuple[str, ArrayLike]]) -> None:
    """Sets each variable in `values`, read lazily: one array is in memory at a time."""
    for path, value in values:
        variables[path].assign(value)
