"""Checks and describes a preset folder before anything is built from it.

    config.json                       architecture, as a serialized Keras object (KerasHub)
    metadata.json                     parameter count, versions; `"weights": "random"` marks untrained weights
    model.weights.h5                  weights, or
    model.weights.json + model_0000N.weights.h5   the same in shards
    tokenizer.json, assets/tokenizer/vocabulary.txt   the tokenizer, if it has one
    head.json, head.weights.h5        the head, if it has one: see `electra_serve.presets.heads`

A config.json with a `model_type` is transformers': see `electra_serve.presets.transformers_checkpoint`. Either may be
compiled: see `electra_serve.presets.artifact`. A folder is untrusted input. Sizes are limited, class names come from an
allow-list, and file names must stay inside the folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from electra_serve.errors import PresetError
from electra_serve.presets.artifact import (
    ARTIFACT_FILE,
    GRAPH_FILE,
    GRAPH_WEIGHTS_FILE,
    Artifact,
    read_artifact,
)
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.digest import sha256_of_files
from electra_serve.presets.files import read_json, shards
from electra_serve.presets.heads import HEAD_FILE, HEAD_WEIGHTS_FILE, HeadConfig, read_head
from electra_serve.presets.sentence_transformers import (
    DEFAULT_EMBEDDING,
    EmbeddingConfig,
    embedding_files,
    read_activation,
    read_embedding,
)
from electra_serve.presets.transformers_checkpoint import (
    MODEL_TYPES,
    TOKENIZER_SIDE_FILES,
    VOCAB_FILE,
    find_checkpoint_weights,
    read_checkpoint_config,
    unsafe_files,
)
from electra_serve.presets.transformers_heads import FoundHead, find_head
from electra_serve.presets.weight_files.open import PresetFormat, WeightsOrigin, detect_pooler, open_weights
from electra_serve.presets.weight_files.safetensors import read_shapes
from electra_serve.runtime.progress import NO_PROGRESS, Progress

CONFIG_FILE: Final = "config.json"
METADATA_FILE: Final = "metadata.json"
WEIGHTS_FILE: Final = "model.weights.h5"
SHARD_INDEX_FILE: Final = "model.weights.json"
TOKENIZER_FILE: Final = "tokenizer.json"
VOCABULARY_FILE: Final = "assets/tokenizer/vocabulary.txt"

# The classes a preset may name: KerasHub's, once called KerasNLP, and ours where KerasHub has no words for it
BACKBONE_CLASSES: Final = ("keras_hub>ElectraBackbone", "keras_nlp>ElectraBackbone", "electra_serve>ElectraBackbone")

BACKBONE_CLASS_NAME: Final = "ElectraBackbone"

BYTES_PER_PARAMETER: Final = (2, 8)  # from 16-bit to 64-bit floats
MAX_WEIGHTS_OVERHEAD_BYTES: Final = 64 * 2**20  # bytes that HDF5 may add to the weights

Source = Literal["embedded", "local", "catalog", "kaggle", "hf"]
HeadChoice = Literal["auto", "none"]


@dataclass(frozen=True, slots=True)
class PresetFolder:
    """Preset that was found and checked, without its weights."""

    id: str
    source: Source
    path: Path | None  # the folder; None for the source `catalog`, a built-in architecture without files
    config: BackboneConfig
    registered_name: str  # class of the preset, from the allow-list; ours for a transformers checkpoint
    sha256: str | None  # digest of the files that determine the outputs; None without files
    weights: WeightsOrigin
    weight_files: tuple[Path, ...]  # weight files, or an artifact's graph; empty if weights are not loaded
    has_tokenizer: bool
    format: PresetFormat = "keras"
    pooler: WeightsOrigin = "random"  # origin of the layer behind `pooled_output`; see `detect_pooler`
    artifact: Artifact | None = None  # manifest of a compiled preset; None for others
    embedding: EmbeddingConfig = DEFAULT_EMBEDDING
    head: HeadConfig | None = None  # head that is served; None without one
    unserved_head: str = ""  # name of a head that is left out; "" without one
    head_problem: str = ""  # reason why a head cannot be served; "" if it can, or without one

    @property
    def parameters(self) -> int:
        """Number of parameters, those of a served head included."""
        return self.config.parameters + (self.head.parameters(self.config.hidden_dim) if self.head else 0)

    @property
    def head_name(self) -> str:
        """Kind of the head; "none" without one."""
        if self.head is not None:
            return self.head.kind
        return f"{self.unserved_head} (not served)" if self.unserved_head else "none"

    def with_head(self, head: HeadChoice) -> PresetFolder:
        """Returns the preset as it is, or for `none` the encoder alone.

        Raises:
            PresetError: Its head cannot be served.
        """
        if head == "none":
            return replace(self, head=None, unserved_head="", head_problem="")
        if self.head_problem:
            raise PresetError(f"{self.id}: {self.head_problem}; `head: none` serves the encoder alone")
        return self

    @property
    def revision(self) -> str | None:
        """First 12 hex digits of `sha256`, enough to distinguish versions."""
        return None if self.sha256 is None else self.sha256[:12]


class _Contents(NamedTuple):
    """Contents of a folder, read by its format."""

    format: PresetFormat
    config: BackboneConfig
    registered_name: str
    weight_files: tuple[Path, ...]
    tokenizer_files: tuple[Path, ...]
    found: FoundHead = FoundHead()


def read_preset_folder(
    path: Path, *, id_: str, source: Source, load_weights: bool, progress: Progress = NO_PROGRESS
) -> PresetFolder:
    """Checks the folder `path`, of either format, and describes it; raises `PresetError`."""
    if (path / ARTIFACT_FILE).is_file():
        if not load_weights:
            raise PresetError(f"{path}: load_weights must be true for a compiled artifact, which has its weights")
        return _read_compiled(path, id_=id_, source=source)
    contents = _read_contents(path, load_weights=load_weights)
    weights: WeightsOrigin = "random" if not load_weights or _says_random(path) else "pretrained"
    decisive = [path / CONFIG_FILE, *contents.weight_files, *contents.tokenizer_files, *embedding_files(path)]
    decisive += [path / HEAD_FILE] if (path / HEAD_FILE).is_file() else []
    return PresetFolder(
        id=id_,
        source=source,
        path=path,
        config=contents.config,
        registered_name=contents.registered_name,
        sha256=sha256_of_files(path, decisive, progress),
        weights=weights,
        weight_files=contents.weight_files,
        has_tokenizer=bool(contents.tokenizer_files),
        format=contents.format,
        pooler=_pooler(contents, id_) if weights == "pretrained" else "random",
        embedding=read_embedding(path),
        head=contents.found.head,
        unserved_head=contents.found.unserved,
        head_problem=contents.found.problem,
    )


def _read_compiled(path: Path, *, id_: str, source: Source) -> PresetFolder:
    """An artifact: its files are compared with its manifest, which also says what its weights are worth."""
    artifact = read_artifact(path)
    contents = _read_contents(path, load_weights=False)
    return PresetFolder(
        id=id_,
        source=source,
        path=path,
        config=contents.config,
        registered_name=contents.registered_name,
        sha256=sha256_of_files(path, [path / ARTIFACT_FILE]),  # which has the digests of all others
        weights=artifact.weights,
        weight_files=(path / GRAPH_FILE, path / GRAPH_WEIGHTS_FILE),
        has_tokenizer=bool(contents.tokenizer_files),
        format=contents.format,
        pooler=artifact.pooler,
        artifact=artifact,
        embedding=read_embedding(path),
        head=read_head(path),
        unserved_head=contents.found.unserved,
    )


def _read_contents(path: Path, *, load_weights: bool) -> _Contents:
    content = read_json(path / CONFIG_FILE)
    of_transformers = "model_type" in content and "registered_name" not in content
    read = _read_checkpoint if of_transformers else _read_keras
    return read(path, content, load_weights=load_weights)


def _read_keras(path: Path, content: Mapping[str, object], *, load_weights: bool) -> _Contents:
    name, config = _keras_config(path / CONFIG_FILE, content)
    head = read_head(path)
    weight_files = _find_weights(path) if load_weights else ()
    if weight_files:
        _check_size(path, weight_files, config.parameters)
    if weight_files and head is not None:
        _check_size(path, [path / HEAD_WEIGHTS_FILE], head.parameters(config.hidden_dim))
        weight_files = (*weight_files, path / HEAD_WEIGHTS_FILE)
    tokenizer_files = (path / TOKENIZER_FILE, path / VOCABULARY_FILE)
    has_tokenizer = all(file.is_file() for file in tokenizer_files)
    found_tokenizer = tokenizer_files if has_tokenizer else ()
    found = FoundHead(head)
    if head is None and (path / HEAD_WEIGHTS_FILE).is_file():
        found = FoundHead(problem=f"{HEAD_FILE} must describe the head of {HEAD_WEIGHTS_FILE}; it is missing")
    return _Contents("keras", config, name, weight_files, found_tokenizer, found)


def _read_checkpoint(path: Path, content: Mapping[str, object], *, load_weights: bool) -> _Contents:
    file = path / CONFIG_FILE
    try:
        config = read_checkpoint_config(content)
    except PresetError as error:
        raise PresetError(f"{file}: {error}") from error
    weight_files = find_checkpoint_weights(path) if load_weights else ()
    names = (TOKENIZER_FILE, VOCAB_FILE, *TOKENIZER_SIDE_FILES)
    tokenizer_files = tuple(path / name for name in names if (path / name).is_file())
    has_tokenizer = any(file.name in {TOKENIZER_FILE, VOCAB_FILE} for file in tokenizer_files)
    shapes = read_shapes(weight_files) if weight_files else None
    found = find_head(content, config, shapes, read_activation(path))
    return _Contents(
        "transformers", config, BACKBONE_CLASSES[-1], weight_files, tokenizer_files if has_tokenizer else (), found
    )


def _keras_config(path: Path, content: Mapping[str, object]) -> tuple[str, BackboneConfig]:
    name, values = content.get("registered_name"), content.get("config")
    if name not in BACKBONE_CLASSES:
        raise PresetError(
            f"{path}: registered_name must be one of {', '.join(BACKBONE_CLASSES)} (the config of any other class "
            f"could run code), or model_type {' or '.join(MODEL_TYPES)}; registered_name is {name!r:.80}"
        )
    if content.get("class_name", BACKBONE_CLASS_NAME) != BACKBONE_CLASS_NAME:
        raise PresetError(f"{path}: class_name must be {BACKBONE_CLASS_NAME}, as registered_name says; it is another")
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
        return shards(path / SHARD_INDEX_FILE, ".weights.h5")
    raise PresetError(f"{path}: must have {WEIGHTS_FILE}, or {SHARD_INDEX_FILE} and its shards; {unsafe_files(path)}")


def _check_size(folder: Path, files: Iterable[Path], parameters: int) -> None:
    """Rejects files that cannot hold the weights, before memory is allocated by the config."""
    try:
        size = sum(file.stat().st_size for file in files)
    except OSError as error:
        raise PresetError(f"{error.filename}: cannot be read ({error.strerror})") from error
    least, most = (parameters * width for width in BYTES_PER_PARAMETER)
    if not least <= size <= most + MAX_WEIGHTS_OVERHEAD_BYTES:
        raise PresetError(
            f"{folder}: the weights of {parameters} parameters take {least} to {most + MAX_WEIGHTS_OVERHEAD_BYTES} "
            f"bytes; the files have {size}"
        )


def _says_random(path: Path) -> bool:
    metadata = path / METADATA_FILE
    return metadata.is_file() and read_json(metadata).get("weights") == "random"


def _pooler(contents: _Contents, label: str) -> WeightsOrigin:
    with open_weights(contents.format, contents.weight_files, contents.config, label) as arrays:
        return detect_pooler(arrays, contents.config)
