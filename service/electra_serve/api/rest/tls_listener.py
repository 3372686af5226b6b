"""Accepts TLS connections, which count from their first moment.

`loop.create_server(ssl=…)` shows a connection only after its handshake, so silent clients would not be limited. Here
each connection is admitted when it is accepted. Its handshake, which takes some 50 kB, begins with its first byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

from electra_serve.api.connections import Connection, ConnectionTable
from electra_serve.api.rest.protocol import BoundedHttpProtocol
from electra_serve.api.sockets import shut_down_quietly

RETRY_S: Final = 0.1  # seconds without accepting after the system could not give a connection


class TlsListener:
    """Accepts connections on listening sockets."""

    def __init__(
        self,
        context: ssl.SSLContext,
        table: ConnectionTable,
        make_http: Callable[[Connection], BoundedHttpProtocol],
        *,
        handshake_timeout_s: float,
        shutdown_timeout_s: float,
    ) -> None:
        self._context = context
        self._table = table
        self._make_http = make_http
        self._handshake_timeout_s = handshake_timeout_s
        self._shutdown_timeout_s = shutdown_timeout_s
        self._listeners: list[socket.socket] = []
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}

    def start(self, listener: socket.socket) -> None:
        """Accepts the connections of a listening socket from now on."""
        listener.settimeout(0)
        self._listeners.append(listener)
        self._resume(listener)

    def close(self) -> None:
        """Accepts no more, and closes the connections that have not finished their handshake."""
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
        self._listeners.clear()
        for client in self._handshakes.values():
            shut_down_quietly(client)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # the client has left
        except OSError:  # no descriptor or no memory: trying at once would keep the event loop
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(RETRY_S, self._resume, listener)
            return
        client.settimeout(0)
        connection = self._table.admit(address[0], partial(shut_down_quietly, client))
        if connection is None:
            client.close()
            return
        task = asyncio.get_running_loop().create_task(self._handshake(client, connection))
        self._handshakes[task] = client
        task.add_done_callback(self._handshakes.pop)

    async def _handshake(self, client: socket.socket, connection: Connection) -> None:
        with contextlib.suppress(OSError):  # no TLS, no good certificate, too slow, or the client has left
            async with asyncio.timeout(self._handshake_timeout_s):
                await _readable(client)
            if not connection.closing:
                await self._start_tls(client, connection)
                return
        client.close()
        self._table.remove(connection)

    async def _start_tls(self, client: socket.socket, connection: Connection) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._make_http(connection),
            client,
            ssl=self._context,
            ssl_handshake_timeout=self._handshake_timeout_s,
            ssl_shutdown_timeout=self._shutdown_timeout_s,
        )


async def _readable(client: socket.socket) -> None:
    """Returns when there is something to read, the end of the connection included."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(client, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(client)
