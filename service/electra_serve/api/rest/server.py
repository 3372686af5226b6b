"""uvicorn with its own sockets, time limits and TLS, without its signal handlers; one listener for each port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from fastapi import FastAPI

from electra_serve.api.connections import Connection, ConnectionTable
from electra_serve.api.rest.protocol import BoundedHttpProtocol, bounded_protocol
from electra_serve.api.rest.tls_listener import TlsListener
from electra_serve.api.security.tls import ServerTls
from electra_serve.api.sockets import listen
from electra_serve.settings.schema import RestSettings

# Seconds that a closing connection waits for its client to close TLS. A drain waits as long.
TLS_SHUTDOWN_S: Final = 2.0


class HttpServer(uvicorn.Server):
    """Serves one application, with the limits of `settings`, and with TLS if `tls` is given."""

    def __init__(
        self, app: FastAPI, settings: RestSettings, connections: ConnectionTable, tls: ServerTls | None = None
    ) -> None:
        super().__init__(_config(app, settings, connections))
        self._tls_listener: TlsListener | None = None
        if tls is not None:
            self._tls_listener = TlsListener(
                tls.context(),
                connections,
                self._make_http,
                handshake_timeout_s=settings.body_timeout_s,
                shutdown_timeout_s=TLS_SHUTDOWN_S,
            )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures no signals: the process has its own handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts connections, with the bounded protocol and TLS handshakes that count."""
        loop = asyncio.get_running_loop()
        self.servers = []
        for listener in sockets or ():
            if self._tls_listener is not None:
                self._tls_listener.start(listener)
            else:
                server = await loop.create_server(self._make_http, sock=listener, backlog=self.config.backlog)
                self.servers.append(server)
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops as uvicorn does, without waiting for unfinished handshakes."""
        if self._tls_listener is not None:
            self._tls_listener.close()
        await super().shutdown(sockets)

    def disconnect_stalled(self) -> None:
        """Closes the connections that wait for their client: nothing is computed for them."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedHttpProtocol) and connection.waits_for_client:
                connection.abort()

    def _make_http(self, connection: Connection | None = None) -> BoundedHttpProtocol:
        http: BoundedHttpProtocol = self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )  # type: ignore[call-arg,assignment]
        http.connection = connection
        return http


class HttpListener:
    """TCP port of one HTTP server: listens, serves and stops."""

    def __init__(self, label: str, server: HttpServer, *, host: str, port: int) -> None:
        self.label = label
        self._server = server
        self._address = (host, port)
        self._listener: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None

    def listen(self) -> int:
        """Binds the port and returns it; clients can connect from then on, and are served after `serve`.

        Raises `StartupError` if the address is not available.
        """
        self._listener = listen(self.label, *self._address)
        port: int = self._listener.getsockname()[1]
        return port

    def serve(self) -> asyncio.Task[None]:
        """Starts serving; the task ends with the server, after `stop` or when it fails."""
        if self._listener is None:
            raise RuntimeError("the port must be taken before it is served")
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        return self._serving

    async def stop(self, grace_s: float | None = None) -> None:
        """Rejects new connections and waits for the requests in flight, or aborts them after `grace_s`, if given."""
        self._server.should_exit = True
        if self._serving is None:
            return
        done, _ = await asyncio.wait({self._serving}, timeout=grace_s)
        if not done:
            self.abort()
        await self._serving

    def disconnect_stalled(self) -> None:
        """Closes the connections whose client has not sent its request or not read its response."""
        self._server.disconnect_stalled()

    def abort(self) -> None:
        """Makes `stop` return without waiting any longer."""
        self._server.force_exit = True


def _config(app: FastAPI, settings: RestSettings, connections: ConnectionTable) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=bounded_protocol(settings, connections),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client could claim the address of another
        timeout_keep_alive=75,  # longer than the 60 s that proxies keep idle connections for
    )
