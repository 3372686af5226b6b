"""Builds the engines of one model: drawn from its preset's weights, or read from an artifact."""

from __future__ import annotations

import openvino as ov

from electra_serve.engine.base import Engine, ShapeGrid
from electra_serve.engine.openvino.artifact import read_graph
from electra_serve.engine.openvino.compile import compile_graph
from electra_serve.engine.openvino.engine import OpenVINOEngine
from electra_serve.engine.openvino.graph import draw_graph
from electra_serve.engine.threads import engine_threads, usable_cores
from electra_serve.errors import EngineUnavailable
from electra_serve.presets.folder import PresetFolder
from electra_serve.settings.schema import ModelSettings


def build_engines(preset: PresetFolder, settings: ModelSettings, grid: ShapeGrid) -> tuple[Engine, ...]:
    """Builds the replicas of one model, which share its weights.

    Raises:
        EngineUnavailable: The device or dtype asked for is not to be had here.
        PresetError: The weights cannot be read.
    """
    if settings.device not in {"auto", "cpu"}:
        raise EngineUnavailable(f"device must be auto or cpu for the openvino engine; received {settings.device}")
    if settings.compiler != "auto":
        raise EngineUnavailable(f"compiler must be auto for the openvino engine; received {settings.compiler}")
    graph = _graph(preset, settings)
    threads = engine_threads(settings.threads, settings.replicas, usable_cores())
    compiled = compile_graph(graph, dtype=settings.dtype, threads=threads, replicas=settings.replicas)
    return tuple(
        OpenVINOEngine(compiled, preset.config, dtype=settings.dtype, grid=grid) for _ in range(settings.replicas)
    )


def _graph(preset: PresetFolder, settings: ModelSettings) -> ov.Model:
    if preset.artifact:
        return read_graph(preset)
    return draw_graph(preset, load_weights=settings.load_weights, int8=settings.dtype == "int8")
