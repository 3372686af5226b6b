"""Reads the weights of a transformers checkpoint, under KerasHub's paths.

A file's header is checked against the config as a whole before anything is built: names, shapes and types.
The format itself promises that offsets lie within the file, cover it and do not overlap; its library checks that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from electra_serve.errors import PresetError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.weight_files.arrays import require_finite
from electra_serve.presets.weight_files.names import (
    Counterpart,
    canonical_names,
    counterparts,
    head_counterparts,
    pooler_paths,
)

FLOAT_TYPES: Final = ("F64", "F32", "F16", "BF16")


class SafetensorsArrays:
    """See `WeightArrays`.

    Args:
        files: The open file of each encoder tensor, and its name there, by the name in `table`.
        table: Which tensor each weight is.
        absent: Paths of `table` that the checkpoint lacks and may lack.
        label: What messages call the preset.
    """

    def __init__(
        self,
        files: Mapping[str, tuple[Any, str]],
        table: Mapping[str, Counterpart],
        absent: frozenset[str],
        label: str,
    ) -> None:
        self._files = files
        self._table = table
        self._label = label
        self.absent = absent

    def read(self, path: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """See `WeightArrays.read`."""
        counterpart = self._table.get(path)
        if counterpart is None or counterpart.name not in self._files:
            raise PresetError(f"{self._label}: the weights must have {path}; it is missing")
        file, name = self._files[counterpart.name]
        tensor: NDArray[Any] = file.get_tensor(name)
        require_finite(tensor, f"{self._label}: {name}")
        return counterpart.to_keras(tensor, shape)


@contextmanager
def open_safetensors(
    files: Sequence[Path], config: BackboneConfig, label: str, head: HeadConfig | None = None
) -> Iterator[SafetensorsArrays]:
    """The weights of encoder and `head` in `files` together, one whole file or all shards; raises `PresetError`."""
    with ExitStack() as stack:
        tensors = _open_all(stack, files)
        try:
            names = canonical_names(tensors)
        except PresetError as error:
            raise PresetError(f"{label}: {error}") from error
        table = counterparts(config)
        absent = _absent(names, table, config)
        wanted = {counterpart.name: counterpart for path, counterpart in table.items() if path not in absent}
        _check_names(names, wanted, label)
        if head is not None:  # `transformers_heads` has compared names and shapes
            heads = head_counterparts(head, config)
            table |= heads
            names |= {counterpart.name: counterpart.name for counterpart in heads.values()}
            wanted |= {counterpart.name: counterpart for counterpart in heads.values()}
        found = {canonical: (tensors[name], name) for canonical, name in names.items()}
        for canonical, (file, name) in found.items():
            _check_tensor(file.get_slice(name), wanted[canonical].shape, f"{label}: {name}")
        yield SafetensorsArrays(found, table, absent, label)


def read_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each tensor in `files`, by its own name; raises `PresetError`."""
    with ExitStack() as stack:
        return {name: tuple(file.get_slice(name).get_shape()) for name, file in _open_all(stack, files).items()}


def _open_all(stack: ExitStack, files: Sequence[Path]) -> dict[str, Any]:
    """The open file of each tensor, by the tensor's own name."""
    tensors: dict[str, Any] = {}
    for path in files:
        try:
            file = stack.enter_context(safe_open(path, framework="numpy"))
        except (OSError, SafetensorError) as error:
            raise PresetError(
                f"{path}: must be a whole safetensors file; it is damaged, truncated or another kind"
            ) from error
        for name in file.keys():  # noqa: SIM118  # no mapping: it has no other way to its names
            if name in tensors:
                raise PresetError(f"{path}: a tensor must be in one shard; {name!r:.80} is in another too")
            tensors[name] = file
    return tensors


def _absent(names: Mapping[str, str], table: Mapping[str, Counterpart], config: BackboneConfig) -> frozenset[str]:
    """The pooler's paths where the checkpoint has none of it: transformers' ELECTRA never does."""
    paths = pooler_paths(config)
    return frozenset(paths) if all(table[path].name not in names for path in paths) else frozenset()


def _check_names(names: Mapping[str, str], wanted: Mapping[str, Counterpart], label: str) -> None:
    missing = sorted(wanted.keys() - names.keys())
    if missing:
        raise PresetError(f"{label}: the checkpoint must have {missing[0]}; it is missing, of {len(missing)} in all")
    surplus = sorted(names[name] for name in names.keys() - wanted.keys())
    if surplus:
        raise PresetError(
            f"{label}: a checkpoint must hold what its config.json describes and transformers' own heads; "
            f"it also holds {surplus[0]!r:.80}, of {len(surplus)} in all"
        )


def _check_tensor(header: Any, shape: tuple[int, ...], what: str) -> None:
    if tuple(header.get_shape()) != shape:
        raise PresetError(f"{what} must have shape {shape}; it has {tuple(header.get_shape())}")
    if header.get_dtype() not in FLOAT_TYPES:
        raise PresetError(f"{what} must be of one of {', '.join(FLOAT_TYPES)}; it is of {header.get_dtype():.20}")
