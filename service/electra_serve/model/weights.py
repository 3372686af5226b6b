"""Assigns weights to the variables of a model: from a preset's files, or drawn."""

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
    """Sets every variable from the preset's files, or to what is drawn for a model without them.

    Args:
        variables: Every variable of the model, by its path: `ElectraBackbone.weights_by_path`.
        preset: The preset to read.
        config: The architecture of the model: the preset's own, unless a caller overrides some of it.
        load_weights: False to draw all of them.

    Raises:
        PresetError: A file is missing, truncated, of another kind, not shaped like the model, or holds NaN or infinity.
    """
    if preset.artifact is not None:
        raise PresetError(f"{preset.id} is a compiled artifact, without weights: use {preset.artifact.preset}")
    assign(variables, read_weights(preset, config, load_weights=load_weights))


def assign(variables: Mapping[str, keras.Variable], values: Iterable[tuple[str, ArrayLike]]) -> None:
    """Sets each variable that `values` names. Reads `values` lazily: one array is in memory at a time."""
    for path, value in values:
        variables[path].assign(value)
