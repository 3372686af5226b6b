"""Builds the engines of one model from a preset's weights or an artifact.

By default one engine per core shares the queue, and one more has all cores for lone requests. The latter holds a second
copy of the weights, since OpenVINO fixes threads at compilation (docs/decisions/0028-all-cores.md).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import openvino as ov

from electra_serve.engine.base import EngineSet
from electra_serve.engine.openvino.artifact import read_graph
from electra_serve.engine.openvino.compile import compile_graph
from electra_serve.engine.openvino.engine import OpenVINOEngine
from electra_serve.engine.openvino.graph import build_graph
from electra_serve.engine.shapes import ShapeLimits, cpu_shapes, single_rows
from electra_serve.engine.threads import arrange, usable_cores
from electra_serve.errors import EngineUnavailable
from electra_serve.presets.folder import PresetFolder
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import BatchShape


def build_engines(preset: PresetFolder, settings: ModelSettings, limits: ShapeLimits) -> EngineSet:
    """Builds the engines of one model, as `EngineBuilder` describes."""
    if settings.device not in {"auto", "cpu"}:
        raise EngineUnavailable(f"device must be auto or cpu for the openvino engine; got {settings.device}")
    if settings.compiler != "auto":
        raise EngineUnavailable(f"compiler must be auto for the openvino engine; got {settings.compiler}")
    graph = _graph(preset, settings)
    cores = arrange(settings.replicas, settings.threads, usable_cores())
    shapes = cpu_shapes(limits)

    def build(engines: int, threads: int, shapes: tuple[BatchShape, ...]) -> tuple[OpenVINOEngine, ...]:
        compiled = compile_graph(graph, dtype=settings.dtype, threads=threads, engines=engines)
        return tuple(
            OpenVINOEngine(compiled, preset.config, preset.head, dtype=settings.dtype, shapes=shapes)
            for _ in range(engines)
        )

    with ThreadPoolExecutor(2) as pool:  # each compilation uses one core
        shared = pool.submit(build, cores.engines, cores.threads, shapes)
        lone = build(1, cores.lone_threads, single_rows(shapes))[0] if cores.lone_threads else None
    return EngineSet(shared.result(), lone)


def _graph(preset: PresetFolder, settings: ModelSettings) -> ov.Model:
    if preset.artifact:
        return read_graph(preset)
    return build_graph(preset, load_weights=settings.load_weights, int8=settings.dtype == "int8")
