"""TLS handshakes that count as connections from their first moment.

`loop.create_server(ssl=…)` shows a connection only after its handshake, so a client that opens connections and stays
silent would not be limited. Here the connection is accepted without TLS, admitted, and then upgraded.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from electra_serve.api.connections import Connection, ConnectionTable
from electra_serve.api.rest.protocol import BoundedHttpProtocol, client_address


class TlsAcceptor:
    """Makes the protocols of new connections, and keeps their handshakes.

    Args:
        context: For the server's side.
        table: Admits the connections.
        make_http: Makes the protocol that takes a connection over after its handshake.
        handshake_timeout_s: Seconds for a handshake.
        shutdown_timeout_s: Seconds for a client to close TLS.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        table: ConnectionTable,
        make_http: Callable[[], BoundedHttpProtocol],
        *,
        handshake_timeout_s: float,
        shutdown_timeout_s: float,
    ) -> None:
        self._context = context
        self._table = table
        self._make_http = make_http
        self._handshake_timeout_s = handshake_timeout_s
        self._shutdown_timeout_s = shutdown_timeout_s
        self._handshakes: dict[asyncio.Task[None], asyncio.Transport] = {}

    def make_protocol(self) -> asyncio.Protocol:
        """Returns the protocol of a connection that was just accepted."""
        return _Accepted(self)

    def abort(self) -> None:
        """Closes the connections that have not finished their handshake."""
        for transport in list(self._handshakes.values()):
            transport.abort()

    def start(self, transport: asyncio.Transport) -> None:
        """Starts the handshake of an accepted connection, if it is admitted."""
        connection = self._table.admit(client_address(transport), transport.abort)
        if connection is None:
            transport.abort()
            return
        transport.pause_reading()
        task = asyncio.get_running_loop().create_task(self._handshake(transport, connection))
        self._handshakes[task] = transport
        task.add_done_callback(self._handshakes.pop)

    async def _handshake(self, transport: asyncio.Transport, connection: Connection) -> None:
        buffer = _Buffer()
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                buffer,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._handshake_timeout_s,
                ssl_shutdown_timeout=self._shutdown_timeout_s,
            )
        except OSError:  # no TLS, no good certificate, too slow, or the client has left
            secured = None
        if secured is None or buffer.lost or connection.closing:
            transport.abort()
            self._table.remove(connection)
            return
        buffer.hand_over(self._make_http(), connection, secured)


class _Accepted(asyncio.Protocol):
    """Protocol of a connection before its handshake."""

    def __init__(self, acceptor: TlsAcceptor) -> None:
        self._acceptor = acceptor

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._acceptor.start(transport)


class _Buffer(asyncio.Protocol):
    """Holds what arrives with the end of the handshake, until HTTP takes over in the event loop's next iteration."""

    def __init__(self) -> None:
        self.lost = False
        self._received = bytearray()
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._received += data

    def eof_received(self) -> None:
        self._ended = True

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True

    def hand_over(self, http: BoundedHttpProtocol, connection: Connection, transport: asyncio.Transport) -> None:
        transport.set_protocol(http)
        http.take_over(connection, transport)
        if self._received:
            http.data_received(bytes(self._received))
        if self._ended:
            http.eof_received()
