"""Reads and writes the JSON and text files of a preset folder: sizes are capped, and names stay inside the folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from electra_serve.errors import PresetError

MAX_JSON_BYTES: Final = 4 * 2**20


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, object]:
    """Reads one of a preset's JSON files; raises `PresetError`."""
    content = _load(path, max_bytes)
    if not isinstance(content, dict):
        raise PresetError(f"{path}: must hold a JSON object; it holds a {type(content).__name__}")
    return content


def read_json_list(path: Path) -> list[object]:
    """Reads one of a preset's JSON files that hold a list; errors are those of `read_json`."""
    content = _load(path, MAX_JSON_BYTES)
    if not isinstance(content, list):
        raise PresetError(f"{path}: must hold a JSON list; it holds a {type(content).__name__}")
    return content


def _load(path: Path, max_bytes: int) -> object:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise PresetError(f"{path}: at most {max_bytes} bytes are read; it has {size}")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise PresetError(f"{path}: cannot be read ({error.strerror}); a preset folder must have it") from error
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{path}: must be JSON in UTF-8; it is malformed") from error


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes JSON as KerasHub lays it out."""
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def read_lines(path: Path, *, max_bytes: int) -> list[str]:
    """Reads a vocabulary: one piece a line, without its line end.

    Raises:
        PresetError: It is unreadable, larger than `max_bytes`, or not UTF-8.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise PresetError(f"{path}: at most {max_bytes} bytes are read; it has more")
        with path.open(encoding="utf-8") as lines:
            return [line.removesuffix("\n") for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise PresetError(f"{path}: must be readable UTF-8, one piece a line; it is not") from error


def shards(index: Path, suffix: str) -> tuple[Path, ...]:
    """The weight files that an index names, each right in the index's own folder.

    Args:
        index: A JSON file whose `weight_map` maps weights to a file name, or to several.
        suffix: What a shard's name ends with.

    Raises:
        PresetError: The index is malformed, or names a file that is elsewhere, missing or of another kind.
    """
    return tuple(_shard(index.parent, name, suffix) for name in _shard_names(index))


def _shard_names(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise PresetError(f"{index}: weight_map must be an object that names at least one shard")
    names: set[str] = set()
    for value in weight_map.values():
        listed = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) for name in listed):
            raise PresetError(f"{index}: weight_map must map to file names; it maps to something else")
        names.update(cast("list[str]", listed))
    return sorted(names)


def _shard(folder: Path, name: str, suffix: str) -> Path:
    if Path(name).name != name or not name.endswith(suffix):
        raise PresetError(f"{folder}: a shard must be a {suffix} file right in the folder; received {name!r:.80}")
    if not (folder / name).is_file():
        raise PresetError(f"{folder}: the shard {name:.80} is missing")
    return folder / name
