"""Writes a backbone as a folder: in KerasHub's format, or as a transformers checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import keras
import numpy as np
from safetensors.numpy import save_file

from electra_serve.model.layout import weight_layout
from electra_serve.presets.config import HIDDEN_ACTIVATIONS
from electra_serve.presets.folder import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE
from electra_serve.presets.transformers_checkpoint import CHECKPOINT_FILE, checkpoint_config
from electra_serve.presets.weight_files.names import counterparts

if TYPE_CHECKING:
    from electra_serve.model.backbone import ElectraBackbone

KERAS_HUB_CLASS: Final = {
    "module": "keras_hub.src.models.electra.electra_backbone",
    "class_name": "ElectraBackbone",
    "registered_name": "keras_hub>ElectraBackbone",
}
OUR_CLASS: Final = {
    "module": "electra_serve.model.backbone",
    "class_name": "ElectraBackbone",
    "registered_name": "electra_serve>ElectraBackbone",
}
PYTORCH: Final = {"format": "pt"}
"""Without this in a file's header, transformers does not take it."""


def save_preset(backbone: ElectraBackbone, folder: Path) -> None:
    """Writes `config.json`, `metadata.json` and `model.weights.h5` as KerasHub does.

    Another activation than KerasHub's makes it a preset of our own class: KerasHub would ignore what it does not
    know, and compute other numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    as_keras_hub = backbone.config.hidden_activation == HIDDEN_ACTIVATIONS[0]
    saved_class = KERAS_HUB_CLASS if as_keras_hub else OUR_CLASS
    config = {
        "module": saved_class["module"],
        "class_name": saved_class["class_name"],
        "config": backbone.get_config(),
        "registered_name": saved_class["registered_name"],
    }
    metadata = {"keras_version": keras.__version__, "parameter_count": backbone.count_params(), "tasks": []}
    _write_json(folder / CONFIG_FILE, config)
    _write_json(folder / METADATA_FILE, metadata)
    backbone.save_weights(folder / WEIGHTS_FILE)


def save_checkpoint(backbone: ElectraBackbone, folder: Path) -> None:
    """Writes `config.json` and `model.safetensors` as `transformers.ElectraModel.save_pretrained` does.

    The pooler goes along as `pooler.dense`, as BERT's is called there: transformers leaves it unread, and what reads
    the checkpoint here has it back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = counterparts(backbone.config)
    tensors = {
        table[path].name: np.ascontiguousarray(table[path].to_transformers(np.asarray(variable)))
        for path, variable in weight_layout(backbone).items()
    }
    _write_json(folder / CONFIG_FILE, checkpoint_config(backbone.config))
    save_file(tensors, folder / CHECKPOINT_FILE, metadata=PYTORCH)
    shutil.copymode(folder / CONFIG_FILE, folder / CHECKPOINT_FILE)  # the library gives it to its owner alone


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
