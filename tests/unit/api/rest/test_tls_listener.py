"""TLS connections before their handshake: counted, limited, and closed in time."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import cast

import pytest

from electra_serve.api.connections import ConnectionTable
from electra_serve.api.rest.protocol import BoundedHttpProtocol
from electra_serve.api.rest.tls_listener import TlsListener
from tests.waiting import until

SOON_S = 0.05


class FullOnce(socket.socket):
    """A listening socket that has no descriptor for its first connection."""

    failed = False

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Fails once."""
        if not self.failed:
            self.failed = True
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


@dataclass
class Side:
    """A listener, its table, and clients of it."""

    table: ConnectionTable
    address: tuple[str, int]
    stack: ExitStack

    def connect(self, sent: bytes = b"") -> socket.socket:
        client = self.stack.enter_context(socket.create_connection(self.address))
        client.sendall(sent)
        client.settimeout(0)
        return client

    async def holds(self, number: int) -> None:
        await until(lambda: len(self.table) == number)


@asynccontextmanager
async def listen(limit: int, listener: socket.socket | None = None, timeout_s: float = 10.0) -> AsyncIterator[Side]:
    table = ConnectionTable(limit, surplus=0)
    tls = TlsListener(
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        table,
        lambda _: cast("BoundedHttpProtocol", asyncio.Protocol()),
        handshake_timeout_s=timeout_s,
        shutdown_timeout_s=timeout_s,
    )
    with listener or socket.socket() as bound, ExitStack() as stack:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        tls.start(bound)
        side = Side(table, bound.getsockname(), stack)
        yield side
        tls.close()
        await side.holds(0)


async def ended(client: socket.socket) -> None:
    """Waits until the server has closed a connection."""
    with suppress(ConnectionResetError):
        async with asyncio.timeout(10):
            while await asyncio.get_running_loop().sock_recv(client, 4096):
                pass


async def test_silent_connections_count_and_make_room() -> None:
    async with listen(2) as side:
        first = side.connect()
        await side.holds(1)
        for _ in range(2):
            side.connect()
        await ended(first)
        await side.holds(2)


async def test_one_that_is_not_admitted_closes_at_once() -> None:
    async with listen(0) as side:
        await ended(side.connect())
        assert len(side.table) == 0


@pytest.mark.parametrize("sent", [b"", b"\x16"], ids=["nothing", "a byte"])
async def test_a_handshake_has_its_time(sent: bytes) -> None:
    async with listen(2, timeout_s=SOON_S) as side:
        await ended(side.connect(sent))
        await side.holds(0)


async def test_what_is_no_tls_ends_the_connection() -> None:
    async with listen(2) as side:
        await ended(side.connect(b"GET / HTTP/1.1\r\n\r\n"))
        await side.holds(0)


async def test_without_a_descriptor_it_tries_again() -> None:
    listener = FullOnce()
    async with listen(2, listener) as side:
        side.connect()
        await side.holds(1)
        assert listener.failed
