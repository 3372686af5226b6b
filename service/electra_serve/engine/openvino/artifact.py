"""Compiles a preset to an artifact: a folder that loads in a second or two, without Keras or TensorFlow."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import openvino as ov

from electra_serve import __version__
from electra_serve.engine.accuracy import Agreement, agreement
from electra_serve.engine.golden import store_golden
from electra_serve.engine.openvino.compile import compile_graph, computes_in
from electra_serve.engine.openvino.engine import OpenVINOEngine
from electra_serve.engine.openvino.graph import build_graph
from electra_serve.engine.shapes import ShapeLimits, cpu_shapes
from electra_serve.engine.threads import engine_threads, usable_cores
from electra_serve.errors import PresetError
from electra_serve.presets.artifact import (
    ENGINE,
    GRAPH_FILE,
    GRAPH_WEIGHTS_FILE,
    Artifact,
    ArtifactDtype,
    write_artifact,
)
from electra_serve.presets.atomic_folder import new_folder, require_free
from electra_serve.presets.digest import sha256_of
from electra_serve.presets.files import write_json
from electra_serve.presets.folder import (
    BACKBONE_CLASS_NAME,
    BACKBONE_CLASSES,
    CONFIG_FILE,
    PresetFolder,
    read_preset_folder,
)
from electra_serve.presets.heads import write_head
from electra_serve.presets.sentence_transformers import copy_embedding
from electra_serve.presets.tokenizers.conversion import convert_tokenizer
from electra_serve.tensors import Encoding


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """Result of `compile_preset`."""

    preset: PresetFolder
    agreement: Agreement | None  # with float32 outputs; None if this CPU cannot compute in the artifact's dtype


def compile_preset(
    preset: PresetFolder, destination: Path, *, dtype: ArtifactDtype, encodings: Sequence[Encoding], load_weights: bool
) -> Compiled:
    """Writes the artifact of `preset` to a new or empty folder, and loads it as `serve` does.

    Its outputs for `encodings`, some hundred typical sequences, are compared with those in float32.

    Raises:
        PresetError: The weights cannot be read, or `destination` cannot be written.
    """
    require_free(destination)
    graph = build_graph(preset, load_weights=load_weights)
    reference = _engine(graph, preset, "float32")
    with new_folder(destination) as folder:
        if dtype == "int8":
            graph = build_graph(preset, load_weights=load_weights, int8=True)
        _write_files(preset, graph, folder)
        runs_here = computes_in(dtype)
        engine = _engine(_read_graph(folder), preset, dtype if runs_here else "float32")
        store_golden(engine, preset.config, folder)
        compared = agreement(engine, reference, encodings) if runs_here else None
        _write_manifest(preset, folder, dtype)
    return Compiled(read_preset_folder(destination, id_=destination.name, source="local", load_weights=True), compared)


def read_graph(preset: PresetFolder) -> ov.Model:
    """Reads the graph of an artifact, with weights on demand; raises PresetError if this OpenVINO version cannot."""
    if preset.path is None:
        raise PresetError(f"cannot read the graph of {preset.id}: it is not a folder")
    return _read_graph(preset.path)


def _read_graph(folder: Path) -> ov.Model:
    try:
        return ov.Core().read_model(folder / GRAPH_FILE, folder / GRAPH_WEIGHTS_FILE)
    except RuntimeError as error:
        raise PresetError(
            f"{folder / GRAPH_FILE}: cannot be read by OpenVINO {ov.__version__}; compile the preset again: "
            f"{error!s:.200}"
        ) from error


def _engine(graph: ov.Model, preset: PresetFolder, dtype: str) -> OpenVINOEngine:
    config = preset.config
    compiled = compile_graph(graph, dtype=dtype, threads=engine_threads(0, 1, usable_cores()), engines=1)
    shapes = cpu_shapes(ShapeLimits(config.max_sequence_length, max_positions=1))
    engine = OpenVINOEngine(compiled, config, preset.head, dtype=dtype, shapes=shapes)
    engine.warm_up()
    return engine


def _write_files(preset: PresetFolder, graph: ov.Model, folder: Path) -> None:
    if preset.path is not None:
        shutil.copyfile(preset.path / CONFIG_FILE, folder / CONFIG_FILE)
        copy_embedding(preset.path, folder)
    else:
        _write_config(preset, folder / CONFIG_FILE)
    if preset.head is not None:
        write_head(folder, preset.head)
    convert_tokenizer(preset, folder, preset.format)
    try:
        ov.save_model(graph, folder / GRAPH_FILE, compress_to_fp16=False)
    except RuntimeError as error:  # such as a full disk
        raise PresetError(f"cannot write {folder / GRAPH_FILE}: {error!s:.200}") from error


def _write_manifest(preset: PresetFolder, folder: Path, dtype: ArtifactDtype) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    artifact = Artifact(
        engine=ENGINE,
        dtype=dtype,
        preset=preset.id,
        preset_sha256=preset.sha256,
        weights=preset.weights,
        pooler=preset.pooler,
        made_by={"electra-serve": __version__, "openvino": ov.__version__},
        files={name: sha256_of(folder / name) for name in names},
    )
    write_artifact(folder, artifact)


def _write_config(preset: PresetFolder, path: Path) -> None:
    content = {
        "registered_name": BACKBONE_CLASSES[-1],
        "class_name": BACKBONE_CLASS_NAME,
        "config": preset.config.to_mapping(),
    }
    write_json(path, content)
