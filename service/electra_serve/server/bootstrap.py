"""Wires every class to the ones it needs: the only file that knows them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from opentelemetry.trace import Tracer

from electra_serve import __version__
from electra_serve.api.connections import ConnectionTable, surplus_of
from electra_serve.api.grpc.connections import kept_free_of
from electra_serve.api.grpc.server import GrpcServer
from electra_serve.api.rest.admin.app import create_admin_app
from electra_serve.api.rest.admin.endpoints import AdminEndpoints
from electra_serve.api.rest.app import create_app, create_metrics_app
from electra_serve.api.rest.server import HttpListener, HttpServer
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.api.security.tls import ServerTls, TlsFiles
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
from electra_serve.errors import SettingsError
from electra_serve.observability.connections import ConnectionObserver
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.requests import RequestObserver
from electra_serve.observability.tracing import Tracing
from electra_serve.presets.sources import default_sources
from electra_serve.runtime import memory
from electra_serve.runtime.file_limit import fit_connections
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.server.event_loop import EventLoopLag
from electra_serve.server.lifecycle import OnReady, ServiceProcess
from electra_serve.serving.loader import Loading, ModelLoader
from electra_serve.serving.manager import ModelManager
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.service import InferenceService
from electra_serve.serving.tokenization import TextEncoder
from electra_serve.serving.tokenizer_queue import TokenizerQueue
from electra_serve.serving.transit_budget import TransitBudget
from electra_serve.settings.schema import (
    BatchingSettings,
    SecuritySettings,
    Settings,
    TokenizationSettings,
    TracingSettings,
)

AUXILIARY_CONNECTIONS: Final = 32
"""Limit of connections for metrics, and for admin: their clients are few, and known."""

PlannerFactory = Callable[[CostTable, BatchingSettings], Planner]
"""Makes the planner of a loaded model."""


def build_process(
    settings: Settings,
    log: structlog.typing.FilteringBoundLogger,
    *,
    on_ready: OnReady,
    load: ModelLoader | None = None,
    make_planner: PlannerFactory | None = None,
    dropped_log_lines: Callable[[], int] = lambda: 0,
) -> ServiceProcess:
    """Builds the whole service; nothing listens or loads until it runs.

    Call it on the event loop that will run it.

    Args:
        settings: Every knob.
        log: Where everything logs.
        on_ready: Called once, when requests can come.
        load: How a model is loaded; default: from the settings' sources of presets.
        make_planner: What cuts a model's batches; default: `build_planner`.
        dropped_log_lines: Reads how many lines of the log were dropped so far.
    """
    metrics = Metrics(__version__, dropped_log_lines)
    tracing = build_tracing(settings.tracing)
    tracer = tracing.tracer
    loading = build_loading(settings, metrics, log, load=load, make_planner=make_planner, tracer=tracer)
    registry = ModelRegistry(settings.models, loading=loading, metrics=metrics)
    trimmer = memory.MemoryTrimmer()
    manager = build_manager(settings, registry, loading, log, trimmer)
    thread = WorkThread("decoder")
    service = InferenceService(registry, TextEncoder(build_tokenizer_queue(settings.tokenization, metrics)))
    rest_observer = RequestObserver("rest", metrics, log, log_requests=settings.log.requests, tracer=tracer)
    grpc_observer = RequestObserver("grpc", metrics, log, log_requests=settings.log.requests, tracer=tracer)
    budget = TransitBudget(settings.transit.max_bytes, LoopClock().now)
    metrics.watch_transit(max_bytes=budget.max_bytes, used_bytes=lambda: budget.used_bytes)
    tls = build_tls(settings.security, log)
    authenticator = build_authenticator(settings.security.api_keys_file, settings.security, log)
    most = settings.max_sequences
    shown = metrics if settings.metrics.port is None else None
    app = create_app(
        service,
        settings.rest,
        shown,
        rest_observer,
        max_sequences=most,
        budget=budget,
        thread=thread,
        authenticator=authenticator,
    )
    connections = build_connections("rest", settings.rest.max_connections, metrics, log)
    rest_server = HttpServer(app, settings.rest, connections, tls)
    grpc_limit = settings.grpc.max_connections
    return ServiceProcess(
        rest=HttpListener("REST", rest_server, host=settings.rest.host, port=settings.rest.port),
        grpc=GrpcServer(
            service,
            settings.grpc,
            grpc_observer,
            max_sequences=most,
            budget=budget,
            connections=build_connections("grpc", grpc_limit, metrics, log, kept_free=kept_free_of(grpc_limit)),
            thread=thread,
            authenticator=authenticator,
            tls=tls,
        ),
        auxiliary_servers=build_auxiliary_servers(settings, service, metrics, manager, log, tls),
        registry=registry,
        manager=manager,
        settings=settings.lifecycle,
        log=log,
        event_loop_lag=EventLoopLag(LoopClock(), metrics.event_loop_lag, log),
        trimmer=trimmer,
        on_ready=on_ready,
        close_tracing=tracing.close,
    )


def lower_connection_limits(
    settings: Settings, descriptors: int, log: structlog.typing.FilteringBoundLogger
) -> Settings:
    """Returns settings whose limits on connections leave some descriptors in reserve, and logs lower ones.

    The system sets the number of descriptors, so defaults that do not fit must not end the start.

    Args:
        settings: All settings.
        descriptors: Files and connections that this process may open.
        log: Takes the warning.
    """
    wanted = settings.rest.max_connections, settings.grpc.max_connections
    fitting = fit_connections(descriptors, wanted)
    if fitting == wanted:
        return settings
    rest, grpc = fitting
    log.warning("connection limits lowered", descriptors=descriptors, rest=rest, grpc=grpc)
    return settings.model_copy(
        update={
            "rest": settings.rest.model_copy(update={"max_connections": rest}),
            "grpc": settings.grpc.model_copy(update={"max_connections": grpc}),
        }
    )


def build_connections(
    server: str, limit: int, metrics: Metrics, log: structlog.typing.FilteringBoundLogger, *, kept_free: int = 0
) -> ConnectionTable:
    """Builds the table of a listener's connections, with its metrics and log lines.

    Args:
        server: Name of the listener.
        limit: Its most connections.
        metrics: Counts them.
        log: Takes the warnings.
        kept_free: How many of them idle ones are not allowed to take. The server itself keeps such a limit.
    """

    def count() -> float:
        return len(table)

    actions = metrics.watch_connections(server, limit=limit, count=count)
    observer = ConnectionObserver(server, limit, actions, LoopClock(), log)
    surplus = kept_free or surplus_of(limit)
    table = ConnectionTable(limit - kept_free, surplus=surplus, on_limit=observer.record)
    return table


def build_tokenizer_queue(settings: TokenizationSettings, metrics: Metrics) -> TokenizerQueue:
    """Queue and threads of the tokenizers of all models, and their gauges."""
    queue = TokenizerQueue(settings.max_queue_characters, LoopClock(), metrics.tokenization_wait)
    metrics.watch_tokenization(
        max_characters=queue.max_characters, characters=lambda: queue.characters, work_s=lambda: queue.work_s
    )
    return queue


def build_tracing(settings: TracingSettings) -> Tracing:
    """Builds the tracer, if tracing is enabled.

    Raises:
        SettingsError: It is, and OpenTelemetry's SDK is not installed.
    """
    if not settings.enabled:
        return Tracing()
    try:
        from electra_serve.observability.opentelemetry import otlp_tracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            "tracing.enabled needs the extra `tracing`: pip install 'electra-serve[tracing]'"
        ) from error
    return otlp_tracing(__version__)


def build_authenticator(
    keys_file: str, security: SecuritySettings, log: structlog.typing.FilteringBoundLogger
) -> Authenticator:
    """Who may ask: who has a key of the file, if there is one, and a certificate, if clients must have one.

    Raises:
        SettingsError: The key file cannot be used.
    """
    keys = KeyRing(Path(keys_file), log) if keys_file else None
    return Authenticator(keys, certified=bool(security.tls_client_ca))


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
    loading = build_loading(settings, metrics, log, load=load, make_planner=make_planner)
    return ModelRegistry(settings.models, loading=loading, metrics=metrics)


def build_loading(
    settings: Settings,
    metrics: Metrics,
    log: structlog.typing.FilteringBoundLogger,
    *,
    load: ModelLoader | None = None,
    make_planner: PlannerFactory | None = None,
    tracer: Tracer | None = None,
) -> Loading:
    """What makes models that answer, each behind a batcher of its own."""
    planned = make_planner or build_planner

    def make_batcher(name: str, loaded: LoadedModel, batching: BatchingSettings) -> Batcher:
        return build_batcher(name, loaded, batching, metrics, log, make_planner=planned, tracer=tracer)

    return Loading(
        limits=settings.limits,
        batching=settings.batching,
        load=load or partial(load_model, sources=default_sources(settings.hub)),
        make_batcher=make_batcher,
        log=log,
    )


def build_manager(
    settings: Settings,
    registry: ModelRegistry,
    loading: Loading,
    log: structlog.typing.FilteringBoundLogger,
    trimmer: memory.MemoryTrimmer,
) -> ModelManager:
    """What can be done to the models at run time."""
    return ModelManager(
        registry,
        loading=loading,
        max_sequences=settings.max_sequences,
        collect_and_trim=trimmer.collect_and_trim,
        log=log,
    )


def build_auxiliary_servers(
    settings: Settings,
    service: InferenceService,
    metrics: Metrics,
    manager: ModelManager,
    log: structlog.typing.FilteringBoundLogger,
    tls: ServerTls | None,
) -> Sequence[HttpListener]:
    """Metrics and admin, as far as they are given ports of their own.

    Raises:
        SettingsError: The file of admin keys cannot be used.
    """
    auxiliary_servers = []
    where = settings.metrics
    if where.port is not None:
        app = create_metrics_app(service, metrics)
        connections = build_connections("metrics", AUXILIARY_CONNECTIONS, metrics, log)
        server = HttpServer(app, settings.rest, connections)
        auxiliary_servers.append(HttpListener("metrics", server, host=where.host, port=where.port))
    admin = settings.admin
    if admin.port is not None:
        authenticator = build_authenticator(admin.keys_file, settings.security, log)
        app = create_admin_app(AdminEndpoints(manager, settings.rest, authenticator, log), keyed=authenticator.keyed)
        connections = build_connections("admin", AUXILIARY_CONNECTIONS, metrics, log)
        server = HttpServer(app, settings.rest, connections, tls)
        auxiliary_servers.append(HttpListener("admin", server, host=admin.host, port=admin.port))
    return auxiliary_servers


def build_planner(costs: CostTable, batching: BatchingSettings) -> Planner:
    """The planner of engines that take so long."""
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
    """Queue, planner and threads of one model, and its gauges."""
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
