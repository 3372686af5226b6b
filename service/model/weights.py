"""Fills a backbone from a preset's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from service.model.initializers import INITIAL_STDDEV, draw
from service.model.layout import weight_layout
from service.presets.folder import PresetFolder
from service.presets.weights import open_weights

if TYPE_CHECKING:
    from service.model.backbone import ElectraBackbone

FRESH_SEED: Final = 0
"""Draws what a format may lack, the pooler of a transformers checkpoint: the same numbers at every load."""


def restore(backbone: ElectraBackbone, folder: PresetFolder) -> None:
    """Sets every weight of `backbone` from the folder's files.

    Raises:
        PresetError: A file is missing, truncated, of another kind, not shaped like the model, or holds NaN or infinity.
    """
    generator = np.random.default_rng(FRESH_SEED)
    with open_weights(folder.format, folder.weight_files, backbone.config, folder.id) as arrays:
        for path, variable in weight_layout(backbone).items():
            shape = tuple(variable.shape)
            fresh = path in arrays.absent
            variable.assign(draw(path, shape, generator, INITIAL_STDDEV) if fresh else arrays.read(path, shape))
