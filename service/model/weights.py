"""Reads and writes the weights of a preset folder.

Files are read with h5py and checked dataset by dataset: Keras' own loader follows external storage, and takes
NaN without complaint. Links are never followed.
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
from service.presets.config import HIDDEN_ACTIVATIONS
from service.presets.folder import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE, PresetFolder

if TYPE_CHECKING:
    from service.model.backbone import ElectraBackbone

KERAS_HUB_CLASS: Final = {
    "module": "keras_hub.src.models.electra.electra_backbone",
    "class_name": "ElectraBackbone",
    "registered_name": "keras_hub>ElectraBackbone",
}
OUR_CLASS: Final = {
    "module": "service.model.backbone",
    "class_name": "ElectraBackbone",
    "registered_name": "electra_serve>ElectraBackbone",
}


def restore(backbone: ElectraBackbone, folder: PresetFolder) -> None:
    """Sets every weight of `backbone` from the folder's files.

    Raises:
        PresetError: A file is missing, truncated, not HDF5, not shaped like the model, or holds NaN or infinity.
    """
    with ExitStack() as stack:
        datasets = _open_all(stack, folder.weight_files)
        for path, variable in weight_layout(backbone).items():
            if path not in datasets:
                raise PresetError(f"{folder.id}: the weights must have {path}; it is missing")
            variable.assign(_read(datasets[path], tuple(variable.shape), f"{folder.id}: {path}"))


def _open_all(stack: ExitStack, files: Sequence[Path]) -> dict[str, h5py.Dataset]:
    """Every dataset of the files by its path. `visititems` leaves out whatever is only a link."""
    datasets: dict[str, h5py.Dataset] = {}

    def collect(path: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            datasets[path] = node

    for file in files:
        try:
            stack.enter_context(h5py.File(file, "r")).visititems(collect)
        except (OSError, RuntimeError) as error:
            raise PresetError(f"{file}: must be a whole HDF5 file; it is damaged, truncated or another kind") from error
    return datasets


def _read(dataset: h5py.Dataset, shape: tuple[int, ...], what: str) -> NDArray[Any]:
    if dataset.external is not None or dataset.is_virtual:
        raise PresetError(f"{what} must be stored in the weight file itself; it points elsewhere")
    if dataset.shape != shape:
        raise PresetError(f"{what} must have shape {shape}; it has {dataset.shape}")
    bfloat16 = dataset.attrs.get("dtype") == "bfloat16" and dataset.dtype.itemsize == 2
    if not bfloat16 and dataset.dtype.kind != "f":
        raise PresetError(f"{what} must hold floating-point numbers; it holds {dataset.dtype}")
    values = _values(dataset, what)
    if bfloat16:
        values = values.view(ml_dtypes.bfloat16)
    if not np.isfinite(values).all():
        raise PresetError(f"{what} must be finite; it holds NaN or infinity")
    return values


def _values(dataset: h5py.Dataset, what: str) -> NDArray[Any]:
    try:
        values: NDArray[Any] = dataset[()]
    except OSError as error:
        raise PresetError(f"{what} cannot be read; the file is damaged") from error
    return values


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


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
