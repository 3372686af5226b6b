"""The files of a preset that are fetched: an allow-list, and the shards that an index names.

Pickles (`pytorch_model.bin`), `.keras` archives and all other files are never requested: reading them can run code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from electra_serve.errors import PresetError
from electra_serve.presets.files import read_json
from electra_serve.presets.folder import CONFIG_FILE, METADATA_FILE, TOKENIZER_FILE, VOCABULARY_FILE
from electra_serve.presets.heads import HEAD_FILE, HEAD_WEIGHTS_FILE
from electra_serve.presets.hubs.failure import Failure, FailureKind, FetchError
from electra_serve.presets.sentence_transformers import HUB_FILES
from electra_serve.presets.transformers_checkpoint import TOKENIZER_SIDE_FILES, VOCAB_FILE

# Optional files
SIDE_FILES: Final = (
    METADATA_FILE,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    VOCAB_FILE,
    *TOKENIZER_SIDE_FILES,
    *HUB_FILES,
    HEAD_FILE,
    HEAD_WEIGHTS_FILE,
)


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Names of the weight files of one format."""

    whole: str  # the single file
    index: str  # otherwise the JSON file whose `weight_map` names the shards
    suffix: str  # end of a shard's name


# In order of preference; the first that exists is used
WEIGHT_FORMATS: Final = (
    WeightFormat("model.weights.h5", "model.weights.json", ".weights.h5"),
    WeightFormat("model.safetensors", "model.safetensors.index.json", ".safetensors"),
)

MAX_SHARDS: Final = 1000

# Fetches the file of that name; None if it does not exist. Raises `FetchError`.
Download = Callable[[str], Path | None]


def fetch_files(download: Download) -> dict[str, Path]:
    """Fetches all files of a preset, small ones first.

    Returns:
        The path of each file by its name in the preset.

    Raises:
        FetchError: A required file is missing or must not be fetched.
    """
    files = {CONFIG_FILE: _required(download, CONFIG_FILE)}
    for name in SIDE_FILES:
        path = download(name)
        if path is not None:
            files[name] = path
    return files | _fetch_weights(download)


def _fetch_weights(download: Download) -> dict[str, Path]:
    for form in WEIGHT_FORMATS:
        whole = download(form.whole)
        if whole is not None:
            return {form.whole: whole}
        index = download(form.index)
        if index is not None:
            return {form.index: index, **{name: _required(download, name) for name in shards(index, form.suffix)}}
    read = ", ".join(name for form in WEIGHT_FORMATS for name in (form.whole, form.index))
    raise FetchError(
        Failure(
            FailureKind.REJECTED,
            f"its weights must be one of {read}; it has none of them (pickles such as pytorch_model.bin and .keras "
            "archives are never read: they can run code)",
        )
    )


def shards(index: Path, suffix: str) -> list[str]:
    """Returns the sorted file names in an index; raises `FetchError`."""
    try:
        weight_map = read_json(index).get("weight_map")
    except PresetError as error:
        raise FetchError(Failure(FailureKind.CORRUPT, f"{index.name} must be a JSON object; it is not")) from error
    names = sorted(set(_strings(weight_map if isinstance(weight_map, Mapping) else {})))
    wrong = [name for name in names if Path(name).name != name or "\\" in name or not name.endswith(suffix)]
    if wrong or not 1 <= len(names) <= MAX_SHARDS:
        named = repr(wrong[0])[:80] if wrong else f"{len(names)} names"
        rule = f"{index.name} must name 1 to {MAX_SHARDS} files *{suffix} in its own folder"
        raise FetchError(Failure(FailureKind.REJECTED, f"{rule}; got {named}"))
    return names


def bytes_below(folder: Path) -> int:
    """Returns the size of all files below `folder`; files that disappear meanwhile count as empty."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  # ten times a second
    return size


def _strings(weight_map: Mapping[str, object]) -> Iterator[str]:
    for value in weight_map.values():
        yield from (str(name) for name in (value if isinstance(value, list) else [value]))


def _required(download: Download, name: str) -> Path:
    path = download(name)
    if path is None:
        raise FetchError(Failure(FailureKind.NOT_FOUND, f"it has no {name}"))
    return path
