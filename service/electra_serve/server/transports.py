"""Builds the servers: REST, gRPC, and the auxiliary servers for metrics and admin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from opentelemetry.trace import Tracer

from electra_serve.api.connections import ConnectionTable, surplus_of
from electra_serve.api.grpc.connections import kept_free_of
from electra_serve.api.grpc.server import GrpcServer
from electra_serve.api.oip.parts import OipParts
from electra_serve.api.rest.admin.app import create_admin_app
from electra_serve.api.rest.admin.endpoints import AdminEndpoints
from electra_serve.api.rest.app import create_app, create_metrics_app
from electra_serve.api.rest.server import HttpListener, HttpServer
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.api.security.tls import ServerTls, TlsFiles
from electra_serve.batching.clock import LoopClock
from electra_serve.observability.connections import ConnectionObserver
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.requests import RequestObserver
from electra_serve.observability.statistics import read_statistics
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.manager import ModelManager
from electra_serve.serving.service import InferenceService
from electra_serve.serving.transit_budget import TransitBudget
from electra_serve.settings.schema import SecuritySettings, Settings

# Most connections to the metrics server, and to the admin server: both have few clients
AUXILIARY_CONNECTIONS: Final = 32


@dataclass(frozen=True, slots=True)
class SharedParts:
    """Objects that several servers share."""

    settings: Settings
    service: InferenceService
    metrics: Metrics
    log: structlog.typing.FilteringBoundLogger
    tracer: Tracer | None
    budget: TransitBudget
    decoder: WorkThread  # thread that decodes large requests
    tls: ServerTls | None  # None to serve without TLS

    def observer(self, transport: str) -> RequestObserver:
        """Builds the observer of a transport's requests."""
        return RequestObserver(
            transport, self.metrics, self.log, log_requests=self.settings.log.requests, tracer=self.tracer
        )

    def oip(self, transport: str) -> OipParts | None:
        """Builds the parts of the Open Inference Protocol on a transport; None if it is off."""
        if not self.settings.apis.oip:
            return None
        return OipParts(self.observer(transport), partial(read_statistics, self.metrics))

    def connections(self, server: str, limit: int, *, kept_free: int = 0) -> ConnectionTable:
        """Builds the connection table of a listener; idle connections may not occupy `kept_free` of its `limit`."""

        def count() -> float:
            return len(table)

        actions = self.metrics.watch_connections(server, limit=limit, count=count)
        observer = ConnectionObserver(server, limit, actions, LoopClock(), self.log)
        surplus = kept_free or surplus_of(limit)
        table = ConnectionTable(limit - kept_free, surplus=surplus, on_limit=observer.record)
        return table


def build_rest(parts: SharedParts, authenticator: Authenticator) -> HttpListener:
    """Builds the REST server, with the metrics unless they have their own port."""
    settings = parts.settings
    app = create_app(
        parts.service,
        settings.rest,
        parts.metrics if settings.metrics.port is None else None,
        parts.observer("rest"),
        max_sequences=settings.max_sequences,
        budget=parts.budget,
        thread=parts.decoder,
        authenticator=authenticator,
        apis=settings.apis,
        oip=parts.oip("oip_rest"),
        grpc_port=settings.grpc.port,
    )
    connections = parts.connections("rest", settings.rest.max_connections)
    largest = max(settings.rest.max_body_bytes, settings.apis.max_body_bytes)
    framing = settings.rest.model_copy(update={"max_body_bytes": largest})  # each route has a limit of its own
    server = HttpServer(app, framing, connections, parts.tls)
    return HttpListener("REST", server, host=settings.rest.host, port=settings.rest.port)


def build_grpc(parts: SharedParts, authenticator: Authenticator) -> GrpcServer:
    """Builds the gRPC server."""
    settings = parts.settings.grpc
    limit = settings.max_connections
    return GrpcServer(
        parts.service,
        settings,
        parts.observer("grpc"),
        max_sequences=parts.settings.max_sequences,
        budget=parts.budget,
        connections=parts.connections("grpc", limit, kept_free=kept_free_of(limit)),
        thread=parts.decoder,
        authenticator=authenticator,
        tls=parts.tls,
        apis=parts.settings.apis,
        oip=parts.oip("oip_grpc"),
    )


def build_auxiliary_servers(parts: SharedParts, manager: ModelManager) -> Sequence[HttpListener]:
    """Builds the metrics and admin servers that have their own ports."""
    servers = []
    metrics = parts.settings.metrics
    if metrics.port is not None:
        connections = parts.connections("metrics", AUXILIARY_CONNECTIONS)
        server = HttpServer(create_metrics_app(parts.service, parts.metrics), parts.settings.rest, connections)
        servers.append(HttpListener("metrics", server, host=metrics.host, port=metrics.port))
    admin = parts.settings.admin
    if admin.port is not None:
        server = _admin_server(parts, manager)
        servers.append(HttpListener("admin", server, host=admin.host, port=admin.port))
    return servers


def _admin_server(parts: SharedParts, manager: ModelManager) -> HttpServer:
    settings = parts.settings
    authenticator = build_authenticator(settings.admin.keys_file, settings.security, parts.log)
    endpoints = AdminEndpoints(manager, settings.rest, authenticator, parts.log)
    app = create_admin_app(endpoints, keyed=authenticator.keyed)
    return HttpServer(app, settings.rest, parts.connections("admin", AUXILIARY_CONNECTIONS), parts.tls)


def build_authenticator(
    keys_file: str, security: SecuritySettings, log: structlog.typing.FilteringBoundLogger
) -> Authenticator:
    """Builds the check of API keys and client certificates; raises `SettingsError` if the key file is invalid."""
    keys = KeyRing(Path(keys_file), log) if keys_file else None
    return Authenticator(keys, certified=bool(security.tls_client_ca))


def build_tls(security: SecuritySettings, log: structlog.typing.FilteringBoundLogger) -> ServerTls | None:
    """Loads the certificate, if one is configured; raises `SettingsError` if a file is invalid."""
    if not security.tls_certificate:
        return None
    client_ca = Path(security.tls_client_ca) if security.tls_client_ca else None
    return ServerTls(TlsFiles(Path(security.tls_certificate), Path(security.tls_key), client_ca), log)
