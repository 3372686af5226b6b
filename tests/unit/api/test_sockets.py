"""Addresses: in use, rejected, and configured so that responses are sent at once."""

from __future__ import annotations

import asyncio
import socket

import pytest

from electra_serve.api.sockets import ClientSockets, disconnect, disconnect_clients, listen
from electra_serve.errors import StartupError

IPV6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine has no IPv6")


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


@IPV6
def test_the_ipv6_wildcard_takes_ipv4_too() -> None:
    with listen("REST", "::", 0) as listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
        pass


@pytest.mark.parametrize(
    ("bound", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        pytest.param("::", "127.0.0.1", marks=IPV6),
        pytest.param("::1", "::1", marks=IPV6),
    ],
)
def test_a_peer_is_disconnected_and_its_neighbor_is_not(bound: str, host: str) -> None:
    with listen("REST", bound, 0) as listener:
        address = (host, listener.getsockname()[1])
        with socket.create_connection(address) as client, socket.create_connection(address) as neighbor:
            accepted = [listener.accept()[0] for _ in range(2)]
            assert disconnect(host, client.getsockname()[1])
            assert client.recv(1) == b""
            accepted[1].sendall(b"x")
            assert neighbor.recv(1) == b"x"
            for connection in accepted:
                connection.close()


def test_no_peer_is_no_error() -> None:
    assert not disconnect("192.0.2.1", 1)


def test_the_clients_of_a_port_are_disconnected_and_others_are_not() -> None:
    with (
        listen("REST", "127.0.0.1", 0) as listener,
        listen("REST", "127.0.0.1", 0) as other,
        socket.create_connection(listener.getsockname()) as client,
        socket.create_connection(other.getsockname()) as neighbor,
        listener.accept()[0],
        other.accept()[0] as kept,
    ):
        disconnect_clients(listener.getsockname()[1])
        assert client.recv(1) == b""
        kept.sendall(b"x")
        assert neighbor.recv(1) == b"x"


@pytest.mark.parametrize("bound", ["127.0.0.1", pytest.param("::", marks=IPV6)])
def test_the_clients_of_a_port_are_found_and_can_be_disconnected(bound: str) -> None:
    with listen("gRPC", bound, 0) as listener, listen("other", "127.0.0.1", 0) as other:
        port = listener.getsockname()[1]
        sockets = ClientSockets(port)
        assert sockets.scan() == {}
        with (
            socket.create_connection(("127.0.0.1", port)) as first,
            socket.create_connection(("127.0.0.1", port)) as second,
            socket.create_connection(other.getsockname()),
            listener.accept()[0],
            listener.accept()[0],
        ):
            assert sockets.scan().keys() == {first.getsockname(), second.getsockname()}
            sockets.shut_down([first.getsockname(), ("192.0.2.7", 5000)])
            assert first.recv(1) == b""
            second.settimeout(0.05)
            with pytest.raises(TimeoutError):
                second.recv(1)
        assert sockets.scan() == {}


def test_a_descriptor_that_has_become_another_connection_is_left_alone() -> None:
    with listen("gRPC", "127.0.0.1", 0) as listener:
        address = listener.getsockname()
        sockets = ClientSockets(address[1])
        with socket.create_connection(address) as first, listener.accept()[0] as accepted:
            peer, number = first.getsockname(), accepted.fileno()
            assert sockets.scan() == {peer: number}
        with socket.create_connection(address) as second, listener.accept()[0] as accepted:
            sockets.shut_down([peer])
            second.sendall(b"a")
            assert accepted.recv(1) == b"a"
            assert sockets.scan().keys() == {second.getsockname()}
