"""Both servers in this process, on free ports, for as long as a context lasts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI

from electra_serve.api.grpc.server import GrpcServer
from electra_serve.api.oip.parts import OipParts
from electra_serve.api.rest.server import HttpServer
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.security.tls import ServerTls
from electra_serve.api.service_protocol import EncodeService
from electra_serve.observability.requests import RequestObserver
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.transit_budget import TransitBudget
from electra_serve.settings.schema import ApiSettings, GrpcSettings, RestSettings
from tests.fakes import connection_table, transit_budget
from tests.waiting import until

HOST: Final = "127.0.0.1"


@asynccontextmanager
async def rest_server(
    app: FastAPI, settings: RestSettings, tls: ServerTls | None = None
) -> AsyncIterator[tuple[HttpServer, int]]:
    """Serves an application over a socket; yields the server and its port."""
    server = HttpServer(app, settings, connection_table(settings.max_connections), tls)
    with socket.create_server((HOST, 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            yield server, listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def grpc_server(
    service: EncodeService,
    settings: GrpcSettings,
    observer: RequestObserver,
    *,
    max_sequences: int,
    budget: TransitBudget | None = None,
    authenticator: Authenticator = ALLOW_ALL,
    tls: ServerTls | None = None,
    thread: WorkThread | None = None,
    apis: ApiSettings = ApiSettings(),  # noqa: B008  # frozen
    oip: OipParts | None = None,
) -> AsyncIterator[tuple[GrpcServer, int]]:
    """Serves a service over gRPC; yields the server and its port."""
    server = GrpcServer(
        service,
        settings,
        observer,
        max_sequences=max_sequences,
        budget=budget or transit_budget(),
        connections=connection_table(),
        authenticator=authenticator,
        tls=tls,
        thread=thread,
        apis=apis,
        oip=oip,
    )
    port = await server.start()
    try:
        yield server, port
    finally:
        await server.stop(0)
