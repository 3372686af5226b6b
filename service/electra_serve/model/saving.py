"""Writes weights as a transformers checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from safetensors.numpy import save_file

from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.files import write_json
from electra_serve.presets.folder import CONFIG_FILE
from electra_serve.presets.transformers_checkpoint import CHECKPOINT_FILE, checkpoint_config
from electra_serve.presets.weight_files.names import counterparts

PYTORCH: Final = {"format": "pt"}  # transformers rejects files without this header


def save_checkpoint(config: BackboneConfig, weights: Mapping[str, ArrayLike], folder: Path) -> None:
    """Writes `config.json` and `model.safetensors` as `transformers.ElectraModel.save_pretrained` does.

    The pooler is saved as BERT's `pooler.dense`, which `ElectraModel` ignores.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = counterparts(config)
    tensors = {
        table[path].name: np.ascontiguousarray(table[path].to_transformers(np.asarray(weight)))
        for path, weight in weights.items()
    }
    write_json(folder / CONFIG_FILE, checkpoint_config(config))
    save_file(tensors, folder / CHECKPOINT_FILE, metadata=PYTORCH)
    shutil.copymode(folder / CONFIG_FILE, folder / CHECKPOINT_FILE)  # the library makes it readable only to its owner
