"""Compiled artifact: a preset folder with an engine's graph in place of the weights.

    electra-serve.artefact.json    what it was made of and by, and a SHA-256 of each file
    electra-serve.golden.json      what it computed of a fixed input: see `electra_serve.engine.golden`
    config.json                    the preset's own, of either format
    model.xml, model.bin           OpenVINO's graph and its weights
    the tokenizer's files          the preset's own

`electra-serve compile` writes it (`electra_serve.engine.openvino.artifact`); a source reads it as any other folder. The
folder must be what the manifest says, no file more or less, so the manifest's own digest stands for all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from electra_serve.errors import PresetError
from electra_serve.presets.digest import sha256_of
from electra_serve.presets.files import read_json
from electra_serve.presets.weight_files.open import WeightsOrigin

ARTIFACT_FILE: Final = "electra-serve.artefact.json"
GRAPH_FILE: Final = "model.xml"
GRAPH_WEIGHTS_FILE: Final = "model.bin"
FORMAT: Final = 3

ArtifactDtype = Literal["float32", "bfloat16", "int8"]
DTYPES: Final[tuple[ArtifactDtype, ...]] = ("float32", "bfloat16", "int8")
ENGINE: Final = "openvino"
_WEIGHTS_ORIGINS: Final = get_args(WeightsOrigin)


@dataclass(frozen=True, slots=True)
class Artifact:
    """Manifest of an artifact: its preset, and the SHA-256 of each file."""

    engine: str
    dtype: ArtifactDtype
    preset: str
    preset_sha256: str | None
    weights: WeightsOrigin
    pooler: WeightsOrigin
    made_by: Mapping[str, str]
    files: Mapping[str, str]


def write_artifact(folder: Path, artifact: Artifact) -> None:
    """Writes the manifest into `folder`."""
    content = {"format": FORMAT, **asdict(artifact)}
    (folder / ARTIFACT_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_artifact(folder: Path) -> Artifact:
    """Reads the manifest in `folder`, and compares every file with it; raises `PresetError`."""
    path = folder / ARTIFACT_FILE
    artifact = _parse(path, read_json(path))
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()} - {ARTIFACT_FILE}
    for name in sorted(found ^ set(artifact.files)):
        state = "was added" if name in found else "is missing"
        raise PresetError(f"{folder}: must be as it was compiled; {name!r:.80} {state}: {_compile_again(artifact)}")
    for name, sha256 in artifact.files.items():
        if sha256_of(folder / name) != sha256:
            raise PresetError(
                f"{folder / name}: must be as it was compiled; it has another SHA-256: {_compile_again(artifact)}"
            )
    for name in (GRAPH_FILE, GRAPH_WEIGHTS_FILE):
        if name not in artifact.files:
            raise PresetError(f"{path}: files must name {name}; it does not: {_compile_again(artifact)}")
    return artifact


def _compile_again(artifact: Artifact) -> str:
    return f"compile {artifact.preset:.80} again"


def _parse(path: Path, content: Mapping[str, object]) -> Artifact:
    known = {key: value for key, value in content.items() if key != "format"}
    if content.get("format") != FORMAT:
        raise PresetError(
            f"{path}: format must be {FORMAT}; got {content.get('format')!r:.20}: compile the preset again"
        )
    try:
        artifact = Artifact(**known)  # type: ignore[arg-type]  # checked below
    except TypeError as error:
        raise PresetError(
            f"{path}: must have the fields that `electra-serve compile` writes; got {', '.join(known):.200}: "
            "compile the preset again"
        ) from error
    well_formed = (
        artifact.engine == ENGINE
        and artifact.dtype in DTYPES
        and isinstance(artifact.preset, str)
        and isinstance(artifact.preset_sha256, str | None)
        and artifact.weights in _WEIGHTS_ORIGINS
        and artifact.pooler in _WEIGHTS_ORIGINS
        and _maps_to_strings(artifact.made_by)
        and _maps_to_strings(artifact.files)
    )
    if not well_formed:
        raise PresetError(
            f"{path}: must be as `electra-serve compile` writes it; a value is malformed: compile the preset again"
        )
    return artifact


def _maps_to_strings(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values())
