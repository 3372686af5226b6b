"""Loads a preset as a backbone, for engines."""

from __future__ import annotations

from electra_serve.model.backbone import BACKBONES, ElectraBackbone
from electra_serve.model.initializers import zeros
from electra_serve.model.weights import restore
from electra_serve.presets.folder import PresetFolder


def load_backbone(preset: PresetFolder, *, dtype: str, load_weights: bool) -> ElectraBackbone:
    """Builds the model of `preset` in `dtype`, a Keras policy; raises PresetError for invalid weight files."""
    backbone: ElectraBackbone = BACKBONES[preset.registered_name].from_folder(
        preset, load_weights=False, dtype=dtype, kernel_initializer=zeros
    )
    restore(backbone.weights_by_path(), preset, backbone.config, load_weights=load_weights)
    return backbone
