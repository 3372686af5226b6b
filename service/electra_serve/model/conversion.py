"""Converts presets between KerasHub's format and transformers'."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from electra_serve.errors import PresetError
from electra_serve.model.loading import LoadedEncoder, load_encoder
from electra_serve.model.saving import save_checkpoint, save_head
from electra_serve.presets.atomic_folder import new_folder
from electra_serve.presets.files import read_json, write_json
from electra_serve.presets.folder import METADATA_FILE, PresetFolder, read_preset_folder
from electra_serve.presets.sentence_transformers import copy_embedding
from electra_serve.presets.tokenizers.conversion import convert_tokenizer
from electra_serve.presets.weight_files.open import PresetFormat, open_weights


def convert(source: PresetFolder, destination: Path, to: PresetFormat) -> PresetFolder:
    """Writes `source` to a new or empty folder, in float32; reads it back and compares.

    Raises:
        PresetError: `source` cannot be loaded or expressed in the format, or `destination` cannot be written.
    """
    with new_folder(destination) as folder:
        _write(source, folder, to)
    return _read(destination)


def _write(source: PresetFolder, folder: Path, to: PresetFormat) -> None:
    encoder = load_encoder(source, dtype="float32", load_weights=True)
    if to == "transformers":
        save_checkpoint(source.config, encoder.weights_by_path(), folder, source.head)
    else:
        encoder.backbone.save_to_preset(folder)
        if encoder.head is not None:
            save_head(encoder.head.head, encoder.head.weights_by_path(), folder)
    if source.weights == "random":
        _mark_random(folder)
    convert_tokenizer(source, folder, to)
    if source.path is not None:
        copy_embedding(source.path, folder)
    _verify(encoder, source, _read(folder))


def _mark_random(folder: Path) -> None:
    metadata = folder / METADATA_FILE
    content = read_json(metadata) if metadata.is_file() else {}
    write_json(metadata, {**content, "weights": "random"})


def _read(folder: Path) -> PresetFolder:
    return read_preset_folder(folder, id_=folder.name, source="local", load_weights=True)


def _verify(encoder: LoadedEncoder, source: PresetFolder, written: PresetFolder) -> None:
    if written.head != source.head:
        raise PresetError(f"cannot verify the head: it is {written.head_name} {written.head_problem}".rstrip())
    with open_weights(written.format, written.weight_files, written.config, written.id, written.head) as arrays:
        for path, variable in encoder.weights_by_path().items():
            if not np.array_equal(arrays.read(path, tuple(variable.shape)), np.asarray(variable)):
                raise PresetError(f"cannot verify {path}: it differs from what was written")
