"""Loads a preset as a Keras model, for engines."""

from __future__ import annotations

from typing import NamedTuple

import keras

from electra_serve.model.backbone import BACKBONES, ElectraBackbone
from electra_serve.model.head import Head
from electra_serve.model.initializers import zeros
from electra_serve.model.weights import assign, restore
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.weights import read_head_weights
from electra_serve.tensors import ENCODER_OUTPUTS, Outputs


class LoadedEncoder(NamedTuple):
    """An encoder, and its head if it has one."""

    backbone: ElectraBackbone
    head: Head | None = None

    @property
    def outputs(self) -> Outputs:
        """The outputs that it computes."""
        return ENCODER_OUTPUTS if self.head is None else ENCODER_OUTPUTS | {self.head.head.output}

    @property
    def weights(self) -> list[keras.Variable]:
        """Every variable."""
        return [*self.backbone.weights, *(self.head.weights if self.head else ())]

    def weights_by_path(self) -> dict[str, keras.Variable]:
        """Returns every variable by its path in a preset's h5 files."""
        return self.backbone.weights_by_path() | (self.head.weights_by_path() if self.head else {})


def load_backbone(preset: PresetFolder, *, dtype: str, load_weights: bool) -> ElectraBackbone:
    """Builds the encoder of `preset` in `dtype`, a Keras policy; raises PresetError for invalid weight files."""
    backbone: ElectraBackbone = BACKBONES[preset.registered_name].from_folder(
        preset, load_weights=False, dtype=dtype, kernel_initializer=zeros
    )
    restore(backbone.weights_by_path(), preset, backbone.config, load_weights=load_weights)
    return backbone


def load_encoder(preset: PresetFolder, *, dtype: str, load_weights: bool) -> LoadedEncoder:
    """Builds the encoder of `preset` with its head; errors are those of `load_backbone`."""
    backbone = load_backbone(preset, dtype=dtype, load_weights=load_weights)
    return LoadedEncoder(backbone, _load_head(preset, load_weights=load_weights))


def _load_head(preset: PresetFolder, *, load_weights: bool) -> Head | None:
    if preset.head is None:
        return None
    head = Head(preset.head, preset.config, zeros, name="head")
    assign(head.weights_by_path(), read_head_weights(preset, load_weights=load_weights))
    return head
