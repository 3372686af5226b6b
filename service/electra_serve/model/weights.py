"""Fills a backbone from a preset's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import PresetError
from service.model.layout import weight_layout
from service.presets.folder import PresetFolder
from service.presets.fresh import read_weights

if TYPE_CHECKING:
    from service.model.backbone import ElectraBackbone


def restore(backbone: ElectraBackbone, folder: PresetFolder, *, load_weights: bool = True) -> None:
    """Sets every weight of `backbone` from the folder's files, or to what is drawn for a model without them.

    Raises:
        PresetError: A file is missing, truncated, of another kind, not shaped like the model, or holds NaN or infinity.
    """
    if folder.artefact is not None:
        raise PresetError(f"{folder.id} is a compiled artefact, without weights: use {folder.artefact.preset}")
    variables = weight_layout(backbone)
    for path, values in read_weights(folder, backbone.config, load_weights=load_weights):
        variables[path].assign(values)
