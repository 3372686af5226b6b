"""The HTTP server: uvicorn's, on a socket of ours, under signals, time limits and TLS of ours."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from electra_serve.api.rest.protocol import bounded_protocol
from electra_serve.api.security.tls import ServerTls
from electra_serve.settings.schema import RestSettings

TLS_SHUTDOWN_S: Final = 2.0
"""How long a closing connection waits for its client to close TLS too. A drain waits as long."""


class HttpServer(uvicorn.Server):
    """Serves one application.

    Args:
        app: What answers.
        settings: Limits; where to listen is the socket's business.
        tls: What to serve TLS with; None: no TLS.
    """

    def __init__(self, app: FastAPI, settings: RestSettings, tls: ServerTls | None = None) -> None:
        super().__init__(_config(app, settings))
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {
                "ssl": tls.context(),
                "ssl_handshake_timeout": settings.body_timeout_s,
                "ssl_shutdown_timeout": TLS_SHUTDOWN_S,
            }

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none: the process has its own handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens. As uvicorn does it a handshake would have a minute, and a shutdown half of one."""
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(self._connection, sock=listener, backlog=self.config.backlog, **self._tls)
            for listener in sockets or ()
        ]
        self.started = True

    def _connection(self) -> asyncio.Protocol:
        connection: asyncio.Protocol = self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )  # type: ignore[call-arg]
        return connection


def _config(app: FastAPI, settings: RestSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=bounded_protocol(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a caller could name itself another client, and take that one's turns
        timeout_keep_alive=75,  # longer than the 60 s that proxies keep idle connections for
    )
