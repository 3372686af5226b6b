"""One HTTP server on one port: uvicorn, started and stopped by whoever owns the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from service.api.listen import listen
from service.api.rest.protocol import bounded_protocol
from service.settings import RestSettings


class HttpServer:
    """Serves an application.

    Args:
        label: What it is called in the log and in errors.
        app: What answers.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        bounds: What a request's head may take.
    """

    def __init__(self, label: str, app: FastAPI, *, host: str, port: int, bounds: RestSettings) -> None:
        self.label = label
        self._address = (host, port)
        self._server = _Uvicorn(_config(app, bounds))
        self._listener: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None

    def listen(self) -> int:
        """Takes the port. Connections are accepted from then on, and answered once it serves.

        Returns:
            The port.

        Raises:
            StartupError: The address cannot be had.
        """
        self._listener = listen(self.label, *self._address)
        port: int = self._listener.getsockname()[1]
        return port

    def serve(self) -> asyncio.Task[None]:
        """Begins to answer.

        Returns:
            Ends when the server has: once it was told to stop, or has failed.
        """
        if self._listener is None:
            raise RuntimeError("the server must listen before it serves")
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        return self._serving

    async def stop(self, grace_s: float | None = None) -> None:
        """Refuses connections, and returns when all requests that came are answered.

        Args:
            grace_s: Seconds after which the rest are given up; None: never, unless by `give_up`.
        """
        self._server.should_exit = True
        if self._serving is None:
            return
        done, _ = await asyncio.wait({self._serving}, timeout=grace_s)
        if not done:
            self.give_up()
        await self._serving

    def give_up(self) -> None:
        """Has `stop` wait for nobody any more."""
        self._server.force_exit = True


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none: `service.lifecycle.Process` has its own, and uvicorn's end the process under gRPC's feet."""
        yield


def _config(app: FastAPI, bounds: RestSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=bounded_protocol(bounds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a caller could name itself another client, and take that one's turns
        timeout_keep_alive=75,  # longer than the 60 s that proxies keep idle connections for
    )
