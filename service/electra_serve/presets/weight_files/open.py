"""Opens the weights of a preset, in whichever format they are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.weight_files.arrays import WeightArrays
from electra_serve.presets.weight_files.hdf5 import open_hdf5
from electra_serve.presets.weight_files.names import pooler_paths
from electra_serve.presets.weight_files.safetensors import open_safetensors

PresetFormat = Literal["keras", "transformers"]
WeightsOrigin = Literal["pretrained", "random"]


def open_weights(
    format_: PresetFormat, files: Sequence[Path], config: BackboneConfig, label: str, head: HeadConfig | None = None
) -> AbstractContextManager[WeightArrays]:
    """The weights of encoder and `head` in `files`, closed when the context ends; raises `PresetError`."""
    if format_ == "transformers":
        return open_safetensors(files, config, label, head)
    return open_hdf5(files, config, label)


def detect_pooler(arrays: WeightArrays, config: BackboneConfig) -> WeightsOrigin:
    """Detects a trained pooler by its bias, which is zero before training.

    No published ELECTRA has a trained pooler: KerasHub saves the initial one, and transformers saves none.

    Raises:
        PresetError: Its bias cannot be read.
    """
    _, bias = pooler_paths(config)
    trained = bias not in arrays.absent and arrays.read(bias, (config.hidden_dim,)).any()
    return "pretrained" if trained else "random"
