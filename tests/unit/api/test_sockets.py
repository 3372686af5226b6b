"""Addresses: taken, refused, and set up so that answers leave at once."""

from __future__ import annotations

import asyncio
import socket

import pytest

from electra_serve.api.sockets import listen
from electra_serve.errors import StartupError


async def test_connections_wait_for_no_acknowledgement() -> None:
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted_socket = writer.get_extra_info("socket")
        seen.set_result(accepted_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = listen("REST", "127.0.0.1", 0)
    async with await asyncio.start_server(accepted, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        assert await seen == 1
        writer.close()
        await writer.wait_closed()


def test_a_taken_port_is_one_line() -> None:
    with listen("REST", "127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(StartupError, match=f"REST cannot listen on 127.0.0.1:{port}: Address already in use"):
            listen("REST", "127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_rejected(host: str) -> None:
    with pytest.raises(StartupError, match=f"gRPC cannot listen on {host}:0"):
        listen("gRPC", host, 0)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine has no IPv6")
def test_the_ipv6_wildcard_takes_ipv4_too() -> None:
    with listen("REST", "::", 0) as listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
        pass
