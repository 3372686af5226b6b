"""Builds the life cycle of the models: loader, batchers and manager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import structlog
from opentelemetry.trace import Tracer

from electra_serve.batching.admission import QueueLimits
from electra_serve.batching.batcher import Batcher
from electra_serve.batching.clock import LoopClock
from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.engine_worker import EngineWorker
from electra_serve.batching.flight_recorder import FlightRecorder
from electra_serve.batching.pending import PendingRow
from electra_serve.batching.planner import Planner
from electra_serve.batching.queue import RequestQueue
from electra_serve.batching.tracing import trace_batch
from electra_serve.batching.worker_pool import Lane, WorkerPool
from electra_serve.engine.base import Engine
from electra_serve.engine.factory import LoadedModel, load_model
from electra_serve.engine.profiling import Timings
from electra_serve.observability.metrics import Metrics
from electra_serve.presets.sources import default_sources
from electra_serve.runtime.progress import NO_PROGRESS, Progress
from electra_serve.serving.loader import Loading, ModelLoader
from electra_serve.serving.manager import ModelManager
from electra_serve.serving.registry import ModelRegistry
from electra_serve.settings.schema import BatchingSettings, Settings

PlannerFactory = Callable[[CostTable, BatchingSettings], Planner]  # makes the planner of a loaded model


def build_manager(
    settings: Settings,
    registry: ModelRegistry,
    metrics: Metrics,
    log: structlog.typing.FilteringBoundLogger,
    *,
    load: ModelLoader | None = None,
    make_planner: PlannerFactory | None = None,
    tracer: Tracer | None = None,
    collect_and_trim: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> ModelManager:
    """Builds the manager of a registry; each loaded model gets its own batcher.

    By default, models are loaded from the presets' sources, and `build_planner` makes their planners. `progress`
    receives the progress of loads; by default only downloads are logged.
    """
    planned = make_planner or build_planner

    def make_batcher(name: str, loaded: LoadedModel, batching: BatchingSettings) -> Batcher:
        return build_batcher(name, loaded, batching, metrics, log, make_planner=planned, tracer=tracer)

    loading = Loading(
        limits=settings.limits,
        batching=settings.batching,
        load=load
        or partial(load_model, sources=default_sources(settings.hub, progress), progress=progress or NO_PROGRESS),
        make_batcher=make_batcher,
        log=log,
    )
    return ModelManager(
        registry,
        loading=loading,
        metrics=metrics,
        max_sequences=settings.max_sequences,
        collect_and_trim=collect_and_trim,
        log=log,
    )


def build_planner(costs: CostTable, batching: BatchingSettings) -> Planner:
    """Builds the planner for engines with these costs."""
    return Planner(costs, max_positions=batching.max_batch_tokens, target_batch_s=batching.target_batch_s)


def build_batcher(
    name: str,
    loaded: LoadedModel,
    batching: BatchingSettings,
    metrics: Metrics,
    log: structlog.typing.FilteringBoundLogger,
    *,
    make_planner: PlannerFactory,
    tracer: Tracer | None = None,
) -> Batcher:
    """Builds queue, planner, engine workers and gauges of one model."""
    clock = LoopClock()
    queue = RequestQueue[PendingRow](
        QueueLimits(batching.max_queue_sequences, batching.max_queue_tokens), engines=len(loaded.engines)
    )

    def lane(kind: str, engines: Sequence[Engine], timings: Timings) -> Lane:
        workers = (EngineWorker(engine, f"{kind}-{name}-{i}", clock) for i, engine in enumerate(engines))
        return Lane(tuple(workers), make_planner(CostTable(timings), batching))

    batcher = Batcher(
        queue=queue,
        pool=WorkerPool(
            lane("engine", loaded.engines, loaded.timings),
            lane("lone-engine", (loaded.lone,), loaded.lone_timings) if loaded.lone else None,
        ),
        clock=clock,
        metrics=metrics.batches(name),
        log=log.bind(model=name),
        max_window_sequences=batching.max_window_sequences,
        hang_timeout_s=batching.hang_timeout_s,
        recorder=FlightRecorder(batching.recorded_batches),
        observe=None if tracer is None else partial(trace_batch, tracer, clock, name),
    )
    metrics.watch_queue(
        name,
        sequences=lambda: queue.sequences,
        tokens=lambda: queue.tokens,
        work_s=lambda: batcher.queued_work_s,
        oldest_wait_s=lambda: queue.oldest_wait_s(clock.now()),
        running=lambda: batcher.running_sequences,
        engines=lambda: len(loaded.engines),
        compilations=lambda: sum(engine.compilations for engine in loaded.all_engines),
        alive=lambda: batcher.alive,
    )
    return batcher
