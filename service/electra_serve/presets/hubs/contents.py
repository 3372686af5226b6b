"""Whether a fetched file is of the kind its name says: what a proxy's login page, an empty file or a cut one is not.

A look at the beginning, and at HDF5's and safetensors' own record of their length. What is in them is checked when they
are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from electra_serve.errors import PresetError
from electra_serve.presets.files import MAX_JSON_BYTES

MAX_TEXT_BYTES: Final = 64 * 2**20
MAX_HEADER_BYTES: Final = 100 * 2**20
"""As the safetensors format itself has it."""
_HTML: Final = (b"<!doctype", b"<html")


def check_content(path: Path, name: str) -> None:
    """Refuses a file that is not what `name` says.

    Args:
        path: Where it is.
        name: What it is in the preset.

    Raises:
        PresetError: It is empty, an HTML page, cut, too large, or of another kind.
    """
    size = path.stat().st_size
    if size == 0:
        raise PresetError(f"{name} must not be empty; it has 0 bytes")
    with path.open("rb") as stream:
        if stream.read(64).lstrip().lower().startswith(_HTML):
            raise PresetError(f"{name} must be a file of the preset; an HTML page came")
    check = next(check for suffix, check in _CHECKS.items() if name.endswith(suffix))
    check(path, name, size)


def _check_json(path: Path, name: str, size: int) -> None:
    most = MAX_TEXT_BYTES if name == "tokenizer.json" else MAX_JSON_BYTES  # transformers' holds the vocabulary
    if size > most:
        raise PresetError(f"{name} must have at most {most} bytes; it has {size}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{name} must be JSON in UTF-8; it is malformed or cut") from error
    if not isinstance(content, dict):
        raise PresetError(f"{name} must hold a JSON object; it holds a {type(content).__name__}")


def _check_text(path: Path, name: str, size: int) -> None:
    if size > MAX_TEXT_BYTES:
        raise PresetError(f"{name} must have at most {MAX_TEXT_BYTES} bytes; it has {size}")
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PresetError(f"{name} must be text in UTF-8; it is not") from error


def _check_hdf5(path: Path, name: str, size: int) -> None:
    import h5py  # a fifth of a second, which only fetching needs

    try:
        h5py.File(path, "r").close()
    except OSError as error:
        raise PresetError(f"{name} must be a whole HDF5 file; its {size} bytes are not") from error


def _check_safetensors(path: Path, name: str, size: int) -> None:
    """8 bytes of header length, the header in JSON, and then as many bytes as its largest offset says."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= MAX_HEADER_BYTES else b""
    try:
        tensors = {key: value for key, value in json.loads(header).items() if key != "__metadata__"}
        end = max((int(value["data_offsets"][1]) for value in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise PresetError(f"{name} must be a safetensors file; it has no such header") from error
    if size != 8 + length + end:
        raise PresetError(f"{name} must be a whole safetensors file of {8 + length + end} bytes; it has {size}")


_CHECKS: Final[Mapping[str, Callable[[Path, str, int], None]]] = {
    ".json": _check_json,
    ".txt": _check_text,
    ".h5": _check_hdf5,
    ".safetensors": _check_safetensors,
}
