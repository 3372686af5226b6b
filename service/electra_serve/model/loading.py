"""From a preset to a model that is ready to compute: the one entry point of the engines."""

from __future__ import annotations

from electra_serve.model.backbone import BACKBONES, ElectraBackbone
from electra_serve.model.initializers import zeros
from electra_serve.model.weights import restore
from electra_serve.presets.folder import PresetFolder


def load_backbone(preset: PresetFolder, *, dtype: str, load_weights: bool) -> ElectraBackbone:
    """Builds the model of `preset`.

    Args:
        preset: From `electra_serve.presets.sources.resolve_preset`.
        dtype: What to compute in: `float32`, `bfloat16`, `float16`, or a mixed policy's name.
        load_weights: False for random weights, the same on every engine.

    Raises:
        PresetError: The weight files are not what they should be.
    """
    backbone: ElectraBackbone = BACKBONES[preset.registered_name].from_folder(
        preset, load_weights=False, dtype=dtype, kernel_initializer=zeros
    )
    restore(backbone.weights_by_path(), preset, backbone.config, load_weights=load_weights)
    return backbone
