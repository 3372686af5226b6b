"""Reads KerasHub's weight files.

Every dataset is checked before it is read: Keras' own loader follows external storage, and takes NaN without
complaint. Links are never followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import ml_dtypes
from numpy.typing import NDArray

from electra_serve.errors import PresetError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.weight_files.arrays import require_finite

LAYER_PREFIX: Final = "layers/transformer_encoder"


class Hdf5Arrays:
    """See `WeightArrays`."""

    absent: frozenset[str] = frozenset()

    def __init__(self, datasets: Mapping[str, h5py.Dataset], label: str) -> None:
        self._datasets = datasets
        self._label = label

    def read(self, path: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """See `WeightArrays.read`."""
        if path not in self._datasets:
            raise PresetError(f"{self._label}: the weights must have {path}; it is missing")
        return _read(self._datasets[path], shape, f"{self._label}: {path}")


@contextmanager
def open_hdf5(files: Sequence[Path], config: BackboneConfig, label: str) -> Iterator[Hdf5Arrays]:
    """The weights of `files` together, one whole file or all shards.

    Raises:
        PresetError: A file is damaged, truncated or another kind, or there are more layers than `config` has: the
            model would compute with some of them missing.
    """
    with ExitStack() as stack:
        datasets = _open_all(stack, files)
        layers = {path.split("/")[1] for path in datasets if path.startswith(LAYER_PREFIX)}
        if len(layers) > config.num_layers:
            raise PresetError(
                f"{label}: the weights must be of {config.num_layers} layers, as the config says; "
                f"they are of {len(layers)}"
            )
        yield Hdf5Arrays(datasets, label)


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
    require_finite(values, what)
    return values


def _values(dataset: h5py.Dataset, what: str) -> NDArray[Any]:
    try:
        values: NDArray[Any] = dataset[()]
    except OSError as error:
        raise PresetError(f"{what} cannot be read; the file is damaged") from error
    return values
