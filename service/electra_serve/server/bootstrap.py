"""Composition root: builds the whole service from its settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from electra_serve import __version__
from electra_serve.api.sockets import local_url
from electra_serve.batching.clock import LoopClock
from electra_serve.errors import SettingsError
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.tracing import Tracing
from electra_serve.runtime.file_limit import fit_connections
from electra_serve.runtime.memory import MemoryTrimmer
from electra_serve.runtime.progress import Progress
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.server.event_loop import EventLoopLag
from electra_serve.server.lifecycle import OnReady, ServiceProcess
from electra_serve.server.models import PlannerFactory, build_manager
from electra_serve.server.transports import (
    SharedParts,
    build_authenticator,
    build_auxiliary_servers,
    build_grpc,
    build_rest,
    build_tls,
)
from electra_serve.serving.loader import ModelLoader
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.service import InferenceService
from electra_serve.serving.tokenization import TextEncoder
from electra_serve.serving.tokenizer_queue import TokenizerQueue
from electra_serve.serving.transit_budget import TransitBudget
from electra_serve.settings.schema import Settings, TokenizationSettings, TracingSettings, TransitSettings


def build_process(
    settings: Settings,
    log: structlog.typing.FilteringBoundLogger,
    *,
    on_ready: OnReady,
    load: ModelLoader | None = None,
    make_planner: PlannerFactory | None = None,
    dropped_log_lines: Callable[[], int] = lambda: 0,
    progress: Progress | None = None,
) -> ServiceProcess:
    """Builds the service on the event loop that will run it; nothing listens or loads before `run`.

    `progress` receives the progress of loads.

    Raises:
        SettingsError: A file that the settings name is invalid, or an extra is missing.
    """
    metrics = Metrics(__version__, dropped_log_lines)
    tracing = build_tracing(settings.tracing)
    trimmer = MemoryTrimmer()
    registry = ModelRegistry(settings.models)
    manager = build_manager(
        settings,
        registry,
        metrics,
        log,
        load=load,
        make_planner=make_planner,
        tracer=tracing.tracer,
        collect_and_trim=trimmer.collect_and_trim,
        progress=progress,
    )
    parts = SharedParts(
        settings=settings,
        service=InferenceService(registry, TextEncoder(build_tokenizer_queue(settings.tokenization, metrics))),
        metrics=metrics,
        log=log,
        tracer=tracing.tracer,
        budget=build_transit_budget(settings.transit, metrics),
        decoder=WorkThread("decoder"),
        tls=build_tls(settings.security, log),
    )
    authenticator = build_authenticator(settings.security.api_keys_file, settings.security, log)
    return ServiceProcess(
        rest=build_rest(parts, authenticator),
        grpc=build_grpc(parts, authenticator),
        auxiliary_servers=build_auxiliary_servers(parts, manager),
        registry=registry,
        manager=manager,
        settings=settings.lifecycle,
        log=log,
        event_loop_lag=EventLoopLag(LoopClock(), metrics.event_loop_lag, log),
        trimmer=trimmer,
        on_ready=on_ready,
        close_tracing=tracing.close,
        page_url=partial(page_url, settings),
    )


def page_url(settings: Settings, rest_port: int) -> str | None:
    """Returns the address of the page to try the service; None if it is off."""
    tls = bool(settings.security.tls_certificate)
    return f"{local_url(settings.rest.host, rest_port, tls=tls)}/" if settings.rest.playground else None


def lower_connection_limits(
    settings: Settings, descriptors: int, log: structlog.typing.FilteringBoundLogger
) -> Settings:
    """Lowers the connection limits to what the process's file descriptors allow, and logs it.

    The system sets the number of descriptors, so defaults that do not fit must not end the start.
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


def build_tokenizer_queue(settings: TokenizationSettings, metrics: Metrics) -> TokenizerQueue:
    """Builds the tokenizers' queue, which all models share, and its gauges."""
    queue = TokenizerQueue(settings.max_queue_characters, LoopClock(), metrics.tokenization_wait)
    metrics.watch_tokenization(
        max_characters=queue.max_characters, characters=lambda: queue.characters, work_s=lambda: queue.work_s
    )
    return queue


def build_transit_budget(settings: TransitSettings, metrics: Metrics) -> TransitBudget:
    """Builds the budget of bytes in transit and its gauges."""
    budget = TransitBudget(settings.max_bytes, LoopClock().now)
    metrics.watch_transit(max_bytes=budget.max_bytes, used_bytes=lambda: budget.used_bytes)
    return budget


def build_tracing(settings: TracingSettings) -> Tracing:
    """Builds the tracer, if tracing is enabled; raises `SettingsError` without OpenTelemetry's SDK."""
    if not settings.enabled:
        return Tracing()
    try:
        from electra_serve.observability.opentelemetry import otlp_tracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            "tracing.enabled needs the extra `tracing`: pip install 'electra-serve[tracing]'"
        ) from error
    return otlp_tracing(__version__)
