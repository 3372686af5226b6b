"""Any preset that loads here, written anew in either format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from electra_serve.errors import PresetError
from electra_serve.model.backbone import ElectraBackbone
from electra_serve.model.layout import weight_layout
from electra_serve.model.loading import load_backbone
from electra_serve.model.saving import save_checkpoint, save_preset
from electra_serve.presets.atomic_folder import new_folder
from electra_serve.presets.files import read_json
from electra_serve.presets.folder import METADATA_FILE, PresetFolder, read_preset_folder
from electra_serve.presets.tokenizers.conversion import convert_tokenizer
from electra_serve.presets.weight_files.open import PresetFormat, open_weights

SAVERS: Final[Mapping[PresetFormat, Callable[[ElectraBackbone, Path], None]]] = {
    "keras": save_preset,
    "transformers": save_checkpoint,
}


def convert(source: PresetFolder, destination: Path, to: PresetFormat) -> PresetFolder:
    """Writes `source` as a folder of the other format, or of its own, in float32; reads it back and compares.

    The folder appears under its name only once it is whole.

    Args:
        source: With weights.
        destination: A folder that does not exist yet, or is empty.
        to: The format to write.

    Returns:
        What was written.

    Raises:
        PresetError: `source` cannot be loaded, has what the other format has no words for, or `destination` is taken
            or cannot be written.
    """
    with new_folder(destination) as folder:
        _write(source, folder, to)
    return _read(destination)


def _write(source: PresetFolder, folder: Path, to: PresetFormat) -> None:
    backbone = load_backbone(source, dtype="float32", load_weights=True)
    SAVERS[to](backbone, folder)
    if source.weights == "random":
        _mark_random(folder)
    convert_tokenizer(source, folder, to)
    _verify(backbone, _read(folder))


def _mark_random(folder: Path) -> None:
    metadata = folder / METADATA_FILE
    content = read_json(metadata) if metadata.is_file() else {}
    metadata.write_text(json.dumps({**content, "weights": "random"}, indent=4) + "\n", encoding="utf-8")


def _read(folder: Path) -> PresetFolder:
    return read_preset_folder(folder, id_=folder.name, source="local", load_weights=True)


def _verify(backbone: ElectraBackbone, written: PresetFolder) -> None:
    with open_weights(written.format, written.weight_files, written.config, written.id) as arrays:
        for path, variable in weight_layout(backbone).items():
            if not np.array_equal(arrays.read(path, tuple(variable.shape)), np.asarray(variable)):
                raise PresetError(f"{path} must be read back as it was written; it is not")
