"""Wires every class to the ones it needs: the only file that knows them all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from service import __version__
from service.api.callers import Callers
from service.api.grpc.server import GrpcServer
from service.api.keys import KeyRing
from service.api.observer import Observer
from service.api.rest.app import create_app
from service.api.tls import ServerTls, TlsFiles
from service.batching.admission import QueueBounds
from service.batching.batcher import Batcher
from service.batching.clock import LoopClock
from service.batching.cost import fit
from service.batching.job import Row
from service.batching.planner import Planner
from service.batching.queue import RequestQueue
from service.batching.runner import EngineRunner
from service.engine.factory import LoadedModel, load_model
from service.inference import InferenceService
from service.lifecycle import OnReady, Process
from service.metrics import Metrics
from service.presets.sources import default_sources
from service.registry import ModelLoader, ModelRegistry
from service.settings import BatchingSettings, SecuritySettings, Settings
from service.texts import TextEncoder

PlannerFactory = Callable[[LoadedModel, BatchingSettings], Planner]
"""Makes the planner of a loaded model."""


def build_process(
    settings: Settings,
    log: structlog.typing.FilteringBoundLogger,
    *,
    on_ready: OnReady,
    load: ModelLoader | None = None,
    make_planner: PlannerFactory | None = None,
) -> Process:
    """Builds the whole service; nothing listens or loads until it runs.

    Call it on the event loop that will run it.

    Args:
        settings: Every knob.
        log: Where everything logs.
        on_ready: Called once, when requests can come.
        load: How a model is loaded; default: from the settings' sources of presets.
        make_planner: What cuts a model's batches; default: `build_planner`.
    """
    metrics = Metrics(__version__)
    registry = build_registry(settings, metrics, log, load=load, make_planner=make_planner)
    service = InferenceService(registry, TextEncoder(), max_timeout_s=settings.limits.max_timeout_s)
    rest_observer = Observer("rest", metrics, log, log_requests=settings.log.requests)
    grpc_observer = Observer("grpc", metrics, log, log_requests=settings.log.requests)
    tls = build_tls(settings.security, log)
    callers = build_callers(settings.security, log)
    most = settings.max_sequences
    return Process(
        app=create_app(service, settings.rest, metrics, rest_observer, max_sequences=most, callers=callers),
        rest=settings.rest,
        grpc=GrpcServer(service, settings.grpc, grpc_observer, max_sequences=most, callers=callers, tls=tls),
        registry=registry,
        settings=settings.lifecycle,
        log=log,
        on_ready=on_ready,
        tls=tls,
    )


def build_callers(security: SecuritySettings, log: structlog.typing.FilteringBoundLogger) -> Callers:
    """Who may ask.

    Raises:
        SettingsError: The key file cannot be used.
    """
    keys = KeyRing(Path(security.api_keys_file), log) if security.api_keys_file else None
    return Callers(keys, certified=bool(security.tls_client_ca))


def build_tls(security: SecuritySettings, log: structlog.typing.FilteringBoundLogger) -> ServerTls | None:
    """What to serve TLS with.

    Raises:
        SettingsError: The files cannot be used.
    """
    if not security.tls_certificate:
        return None
    client_ca = Path(security.tls_client_ca) if security.tls_client_ca else None
    return ServerTls(TlsFiles(Path(security.tls_certificate), Path(security.tls_key), client_ca), log)


def build_registry(
    settings: Settings,
    metrics: Metrics,
    log: structlog.typing.FilteringBoundLogger,
    *,
    load: ModelLoader | None = None,
    make_planner: PlannerFactory | None = None,
) -> ModelRegistry:
    """The configured models, each to be put behind a batcher of its own."""

    def make_batcher(name: str, loaded: LoadedModel, batching: BatchingSettings) -> Batcher:
        return build_batcher(name, loaded, batching, metrics, log, make_planner=make_planner or build_planner)

    return ModelRegistry(
        settings.models,
        limits=settings.limits,
        batching=settings.batching,
        load=load or partial(load_model, sources=default_sources(settings.hub)),
        make_batcher=make_batcher,
        metrics=metrics,
        log=log,
    )


def build_planner(loaded: LoadedModel, batching: BatchingSettings) -> Planner:
    """The planner of one model, by what its engine took at calibration."""
    grid = loaded.engines[0].signature.grid
    return Planner(
        fit(loaded.timings),
        grid,
        max_tokens=batching.max_batch_tokens,
        target_batch_s=batching.target_batch_s,
    )


def build_batcher(
    name: str,
    loaded: LoadedModel,
    batching: BatchingSettings,
    metrics: Metrics,
    log: structlog.typing.FilteringBoundLogger,
    *,
    make_planner: PlannerFactory,
) -> Batcher:
    """Queue, planner and threads of one model, and its gauges."""
    clock = LoopClock()
    queue = RequestQueue[Row](
        QueueBounds(batching.max_queue_sequences, batching.max_queue_tokens), engines=len(loaded.engines)
    )
    batcher = Batcher(
        queue=queue,
        planner=make_planner(loaded, batching),
        runners=[EngineRunner(engine, f"engine-{name}-{i}", clock) for i, engine in enumerate(loaded.engines)],
        clock=clock,
        metrics=metrics.batches(name),
        log=log.bind(model=name),
        max_window_sequences=batching.max_window_sequences,
    )
    metrics.watch_queue(
        name,
        sequences=lambda: queue.sequences,
        tokens=lambda: queue.tokens,
        oldest_wait_s=lambda: queue.oldest_wait_s(clock.now()),
        running=lambda: batcher.running_sequences,
        compilations=lambda: sum(engine.compilations for engine in loaded.engines),
    )
    return batcher
