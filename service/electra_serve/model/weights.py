"""Fills a backbone from a preset's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from electra_serve.errors import PresetError
from electra_serve.model.layout import weight_layout
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.weights import read_weights

if TYPE_CHECKING:
    from electra_serve.model.backbone import ElectraBackbone


def restore(backbone: ElectraBackbone, folder: PresetFolder, *, load_weights: bool = True) -> None:
    """Sets every weight of `backbone` from the folder's files, or to what is drawn for a model without them.

    Raises:
        PresetError: A file is missing, truncated, of another kind, not shaped like the model, or holds NaN or infinity.
    """
    if folder.artifact is not None:
        raise PresetError(f"{folder.id} is a compiled artifact, without weights: use {folder.artifact.preset}")
    variables = weight_layout(backbone)
    for path, values in read_weights(folder, backbone.config, load_weights=load_weights):
        variables[path].assign(values)
