"""A TCP port on which an HTTP server answers, from the first moment of the process to its last."""

from __future__ import annotations

import asyncio
import socket

from electra_serve.api.rest.server import HttpServer
from electra_serve.api.sockets import listen


class HttpListener:
    """Listens, serves and stops.

    Args:
        label: What it is called in the log and in errors.
        server: What answers.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
    """

    def __init__(self, label: str, server: HttpServer, *, host: str, port: int) -> None:
        self.label = label
        self._server = server
        self._address = (host, port)
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
            raise RuntimeError("the port must be taken before it is served")
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        return self._serving

    async def stop(self, grace_s: float | None = None) -> None:
        """Refuses connections, and returns when all requests that came are answered.

        Args:
            grace_s: Seconds after which the rest are given up; None: never, unless by `abort`.
        """
        self._server.should_exit = True
        if self._serving is None:
            return
        done, _ = await asyncio.wait({self._serving}, timeout=grace_s)
        if not done:
            self.abort()
        await self._serving

    def abort(self) -> None:
        """Has `stop` wait for nobody any more."""
        self._server.force_exit = True
