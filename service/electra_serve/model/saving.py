"""Writes weights as a transformers checkpoint, and heads next to a KerasHub preset."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import h5py
import numpy as np
from numpy.typing import ArrayLike
from safetensors.numpy import save_file

from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.files import write_json
from electra_serve.presets.folder import CONFIG_FILE
from electra_serve.presets.heads import HEAD_WEIGHTS_FILE, HeadConfig, write_head
from electra_serve.presets.transformers_checkpoint import CHECKPOINT_FILE, checkpoint_config
from electra_serve.presets.weight_files.names import counterparts, head_counterparts

PYTORCH: Final = {"format": "pt"}  # transformers rejects files without this header


def save_checkpoint(
    config: BackboneConfig, weights: Mapping[str, ArrayLike], folder: Path, head: HeadConfig | None = None
) -> None:
    """Writes `config.json` and `model.safetensors` as the `save_pretrained` of transformers' class does.

    The pooler is saved as BERT's `pooler.dense`, which ELECTRA's classes ignore.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "" if head is None else f"{head.architecture}."
    table = {path: replace(tensor, name=f"{prefix}{tensor.name}") for path, tensor in counterparts(config).items()}
    table |= head_counterparts(head, config) if head else {}
    tensors = {
        table[path].name: np.ascontiguousarray(table[path].to_transformers(np.asarray(weight)))
        for path, weight in weights.items()
    }
    write_json(folder / CONFIG_FILE, checkpoint_config(config, head))
    save_file(tensors, folder / CHECKPOINT_FILE, metadata=PYTORCH)
    shutil.copymode(folder / CONFIG_FILE, folder / CHECKPOINT_FILE)  # the library makes it readable only to its owner


def save_head(head: HeadConfig, weights: Mapping[str, ArrayLike], folder: Path) -> None:
    """Writes `head.json` and `head.weights.h5` into a KerasHub preset, which KerasHub ignores."""
    write_head(folder, head)
    with h5py.File(folder / HEAD_WEIGHTS_FILE, "w") as file:
        for path, weight in weights.items():
            file.create_dataset(path, data=np.asarray(weight))
