"""Reads and writes the weights of a preset folder.

Files are read with h5py and checked dataset by dataset before a single variable is set: Keras' own loader
follows external datasets, and takes files with flipped bytes and NaN without complaint. Links are never followed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import h5py
import keras
import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from service.errors import PresetError
from service.model.layout import weight_layout
from service.presets.folder import BACKBONE_CLASS, CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE, PresetFolder

if TYPE_CHECKING:
    from service.model.backbone import ElectraBackbone

KERAS_HUB_MODULE: Final = "keras_hub.src.models.electra.electra_backbone"
INITIAL_STDDEV: Final = 0.02


def restore(backbone: ElectraBackbone, folder: PresetFolder) -> None:
    """Sets every weight of `backbone` from the folder's files.

    Raises:
        PresetError: A file is missing, truncated, not HDF5, not shaped like the model, or holds NaN or infinity.
    """
    with ExitStack() as stack:
        datasets = _open_all(stack, folder.weight_files)
        for path, variable in weight_layout(backbone).items():
            variable.assign(_read(datasets, path, tuple(variable.shape), folder.id))


def _open_all(stack: ExitStack, files: Sequence[Path]) -> dict[str, h5py.Dataset]:
    datasets: dict[str, h5py.Dataset] = {}
    for file in files:
        try:
            opened = stack.enter_context(h5py.File(file, "r"))
        except OSError as error:
            raise PresetError(
                f"{file}: must be a whole HDF5 file; it is damaged, truncated or something else"
            ) from error
        opened.visititems(lambda name, node: datasets.update({name: node} if isinstance(node, h5py.Dataset) else {}))
    return datasets


def _read(datasets: Mapping[str, h5py.Dataset], path: str, shape: tuple[int, ...], preset: str) -> NDArray[Any]:
    dataset = datasets.get(path)
    if dataset is None:
        raise PresetError(f"{preset}: the weights must have {path}, of shape {shape}; it is missing")
    if dataset.external is not None or dataset.is_virtual:
        raise PresetError(f"{preset}: {path} must be stored in the weight file itself; it points elsewhere")
    if dataset.shape != shape:
        raise PresetError(f"{preset}: {path} must have shape {shape}; it has {dataset.shape}")
    return _finite(_values(dataset), f"{preset}: {path}")


def _values(dataset: h5py.Dataset) -> NDArray[Any]:
    try:
        values: NDArray[Any] = dataset[()]
    except OSError as error:
        raise PresetError(f"{dataset.file.filename}: {dataset.name} cannot be read; the file is damaged") from error
    return values.view(ml_dtypes.bfloat16) if dataset.attrs.get("dtype") == "bfloat16" else values


def _finite(values: NDArray[Any], what: str) -> NDArray[Any]:
    if values.dtype.kind != "f" and values.dtype != ml_dtypes.bfloat16:
        raise PresetError(f"{what} must hold floating-point numbers; it holds {values.dtype}")
    if not np.isfinite(values).all():
        raise PresetError(f"{what} must be finite; it holds NaN or infinity")
    return values


def randomise(backbone: ElectraBackbone, seed: int, stddev: float = INITIAL_STDDEV) -> None:
    """Draws fresh weights: the same for a seed on every backend, and as ELECTRA starts training.

    Matrices are normal with deviation `stddev`, cut at two deviations; biases are 0; norms 1 and 0.
    """
    generator = np.random.default_rng(seed)
    for path, variable in weight_layout(backbone).items():
        variable.assign(_fresh(path, tuple(variable.shape), generator, stddev))


def _fresh(path: str, shape: tuple[int, ...], generator: np.random.Generator, stddev: float) -> NDArray[np.float32]:
    group, index = path.split("/vars/")
    if group.endswith(("layer_norm", "layer_normalization")):
        return np.full(shape, 1.0 if index == "0" else 0.0, np.float32)
    if index == "1":
        return np.zeros(shape, np.float32)
    drawn = generator.standard_normal(shape, np.float32)
    while (outside := np.abs(drawn) > 2).any():
        drawn[outside] = generator.standard_normal(int(outside.sum()), np.float32)
    return drawn * np.float32(stddev)


def save_preset(backbone: ElectraBackbone, folder: Path) -> None:
    """Writes `config.json`, `metadata.json` and `model.weights.h5` as KerasHub does."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "module": KERAS_HUB_MODULE,
        "class_name": "ElectraBackbone",
        "config": backbone.get_config(),
        "registered_name": BACKBONE_CLASS,
    }
    metadata = {"keras_version": keras.__version__, "parameter_count": backbone.count_params()}
    _write_json(folder / CONFIG_FILE, config)
    _write_json(folder / METADATA_FILE, metadata)
    backbone.save_weights(folder / WEIGHTS_FILE)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
