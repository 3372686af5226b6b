"""A preset folder in KerasHub's format, checked and described before anything is built from it.

    config.json                       architecture, as a serialised Keras object
    metadata.json                     parameter count, versions; `"weights": "random"` marks untrained weights
    model.weights.h5                  weights, or
    model.weights.json + model_0000N.weights.h5   the same in shards
    tokenizer.json, assets/tokenizer/vocabulary.txt   the tokenizer, if it has one

A folder is input, not code: sizes are capped, class names come from an allow-list, and a file name found
inside a file must stay inside the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from service.errors import PresetError
from service.presets.config import BackboneConfig
from service.presets.digest import sha256_of_files

CONFIG_FILE: Final = "config.json"
METADATA_FILE: Final = "metadata.json"
WEIGHTS_FILE: Final = "model.weights.h5"
SHARD_INDEX_FILE: Final = "model.weights.json"
TOKENIZER_FILE: Final = "tokenizer.json"
VOCABULARY_FILE: Final = "assets/tokenizer/vocabulary.txt"

BACKBONE_CLASSES: Final = ("keras_hub>ElectraBackbone", "keras_nlp>ElectraBackbone", "electra_serve>ElectraBackbone")
"""The classes a preset may name: KerasHub's, once called KerasNLP, and ours where KerasHub has no words for it."""

MAX_JSON_BYTES: Final = 4 * 2**20
BYTES_PER_PARAMETER: Final = (2, 8)
"""From 16-bit to 64-bit floats."""
MAX_WEIGHTS_OVERHEAD_BYTES: Final = 64 * 2**20
"""What HDF5 may add to the weights themselves."""

Source = Literal["embedded", "local", "catalog", "kaggle", "hf"]
Weights = Literal["pretrained", "random"]


@dataclass(frozen=True, slots=True)
class PresetFolder:
    """A preset that was found and checked; its weights are not yet read.

    Attributes:
        id: Its name: a built-in id, or the folder's name.
        source: Where it came from: `embedded`, `local`, `kaggle`, `hf`, or `catalog` (a built-in architecture without
            files).
        path: The folder; None for `catalog`.
        config: The architecture.
        registered_name: The class that the preset names, from the allow-list.
        sha256: Digest of the files that decide the numbers, as `service.presets.digest` makes it; None without files.
        weights: What the weights are worth: `pretrained`, or `random`.
        weight_files: The h5 files, whole or in shards; empty where weights are not to be loaded.
        has_tokenizer: Whether it can take text.
    """

    id: str
    source: Source
    path: Path | None
    config: BackboneConfig
    registered_name: str
    sha256: str | None
    weights: Weights
    weight_files: tuple[Path, ...]
    has_tokenizer: bool

    @property
    def revision(self) -> str | None:
        """The first 12 hex digits of `sha256`: enough to tell versions apart."""
        return None if self.sha256 is None else self.sha256[:12]


def read_preset_folder(path: Path, *, id_: str, source: Source, load_weights: bool) -> PresetFolder:
    """Checks the folder `path` and describes it.

    Raises:
        PresetError: A file is missing, unreadable, too large or malformed, or names what it must not.
    """
    registered_name, config = _read_config(path / CONFIG_FILE)
    weight_files = _find_weights(path) if load_weights else ()
    if weight_files:
        _check_size(path, weight_files, config.parameters)
    tokenizer_files = [path / TOKENIZER_FILE, path / VOCABULARY_FILE]
    has_tokenizer = all(file.is_file() for file in tokenizer_files)
    decisive = [path / CONFIG_FILE, *weight_files, *(tokenizer_files if has_tokenizer else [])]
    return PresetFolder(
        id=id_,
        source=source,
        path=path,
        config=config,
        registered_name=registered_name,
        sha256=sha256_of_files(path, decisive),
        weights="random" if not load_weights or _says_random(path) else "pretrained",
        weight_files=weight_files,
        has_tokenizer=has_tokenizer,
    )


def read_json(path: Path) -> dict[str, object]:
    """Reads one of a preset's JSON files.

    Raises:
        PresetError: It is missing, unreadable, larger than `MAX_JSON_BYTES`, or not a JSON object.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise PresetError(f"{path}: at most {MAX_JSON_BYTES} bytes are read; it has {size}")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise PresetError(f"{path}: cannot be read ({error.strerror}); a preset folder must have it") from error
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{path}: must be JSON in UTF-8; it is malformed") from error
    if not isinstance(content, dict):
        raise PresetError(f"{path}: must hold a JSON object; it holds a {type(content).__name__}")
    return content


def _read_config(path: Path) -> tuple[str, BackboneConfig]:
    content = read_json(path)
    name, values = content.get("registered_name"), content.get("config")
    if name not in BACKBONE_CLASSES:
        raise PresetError(f"{path}: registered_name must be one of {', '.join(BACKBONE_CLASSES)}; it is {name!r:.80}")
    if not isinstance(values, Mapping):
        raise PresetError(f"{path}: config must be a JSON object; it is a {type(values).__name__}")
    try:
        return str(name), BackboneConfig.from_mapping(values)
    except PresetError as error:
        raise PresetError(f"{path}: {error}") from error


def _find_weights(path: Path) -> tuple[Path, ...]:
    if (path / WEIGHTS_FILE).is_file():
        return (path / WEIGHTS_FILE,)
    if (path / SHARD_INDEX_FILE).is_file():
        return tuple(_shard(path, name) for name in _shard_names(path / SHARD_INDEX_FILE))
    raise PresetError(f"{path}: must have {WEIGHTS_FILE}, or {SHARD_INDEX_FILE} and its shards; it has neither")


def _shard_names(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise PresetError(f"{index}: weight_map must be an object that names at least one shard")
    names: set[str] = set()
    for value in weight_map.values():
        shards = value if isinstance(value, list) else [value]
        if not all(isinstance(shard, str) for shard in shards):
            raise PresetError(f"{index}: weight_map must map to file names; it maps to something else")
        names.update(cast("list[str]", shards))
    return sorted(names)


def _shard(folder: Path, name: str) -> Path:
    if Path(name).name != name or not name.endswith(".weights.h5"):
        raise PresetError(f"{folder}: a shard must be a .weights.h5 file right in the folder; received {name!r:.80}")
    if not (folder / name).is_file():
        raise PresetError(f"{folder}: the shard {name:.80} is missing")
    return folder / name


def _check_size(folder: Path, files: Iterable[Path], parameters: int) -> None:
    """Refuses files that cannot hold the weights, before anything of the size the config asks for is built."""
    size = sum(file.stat().st_size for file in files)
    least, most = (parameters * width for width in BYTES_PER_PARAMETER)
    if not least <= size <= most + MAX_WEIGHTS_OVERHEAD_BYTES:
        raise PresetError(
            f"{folder}: the weights of {parameters} parameters take {least} to {most + MAX_WEIGHTS_OVERHEAD_BYTES} "
            f"bytes; the files have {size}"
        )


def _says_random(path: Path) -> bool:
    metadata = path / METADATA_FILE
    return metadata.is_file() and read_json(metadata).get("weights") == "random"
