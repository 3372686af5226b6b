"""gRPC's connections: watched from outside, and closed if they are idle."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import grpc

from electra_serve.api.connections import ConnectionTable
from electra_serve.api.grpc.connections import ConnectionWatch, PeerCalls
from electra_serve.api.grpc.server import GrpcServer
from electra_serve.settings.schema import GrpcSettings
from tests.fake_service import FakeService
from tests.fakes import transit_budget
from tests.unit.api.grpc.conftest import observer
from tests.waiting import until

FIRST, SECOND, THIRD = [("192.0.2.7", port) for port in (5001, 5002, 5003)]


def name(peer: tuple[str, int]) -> str:
    """The peer as gRPC names it."""
    return f"ipv4:{peer[0]}:{peer[1]}"


def make_watch(limit: int, surplus: int = 0) -> tuple[ConnectionWatch, PeerCalls, ConnectionTable]:
    calls, table = PeerCalls(), ConnectionTable(limit, surplus=surplus)
    return ConnectionWatch(table, calls), calls, table


def test_over_the_limit_an_idle_connection_is_disconnected() -> None:
    watch, _, table = make_watch(2)
    assert watch.update({FIRST, SECOND}) == []
    assert len(watch.update({FIRST, SECOND, THIRD})) == 1
    assert len(table) == 3, "it counts until it is gone"
    assert watch.update({THIRD}) == []
    assert len(table) == 1


def test_a_connection_with_a_call_stays() -> None:
    watch, calls, _ = make_watch(1, surplus=1)
    calls.begin(name(FIRST))
    watch.update({FIRST})
    assert watch.update({FIRST, SECOND}) == []
    calls.end(name(FIRST))
    assert len(watch.update({FIRST, SECOND, THIRD})) == 1


def test_a_connection_that_had_a_call_is_not_the_longest_idle() -> None:
    watch, calls, _ = make_watch(2)
    watch.update({FIRST})
    watch.update({FIRST, SECOND})
    calls.begin(name(FIRST))
    calls.end(name(FIRST))
    assert watch.update({FIRST, SECOND, THIRD}) == [SECOND]


def test_a_newcomer_that_cannot_be_admitted_is_disconnected() -> None:
    watch, calls, table = make_watch(1)
    calls.begin(name(FIRST))
    watch.update({FIRST})
    assert watch.update({FIRST, SECOND}) == [SECOND]
    assert watch.update({FIRST, SECOND}) == [], "once is enough"
    assert watch.update({FIRST}) == []
    assert len(table) == 1


async def test_a_server_disconnects_idle_clients_and_serves_others() -> None:
    table = ConnectionTable(1, surplus=8)
    server = GrpcServer(
        FakeService(), GrpcSettings(port=0), observer(), max_sequences=1, budget=transit_budget(), connections=table
    )
    port = await server.start()
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(4)]
        await until(lambda: sum(has_ended(connection) for connection in silent) >= 3)
        async with asyncio.timeout(10), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.channel_ready()
    await server.stop(0)


def has_ended(connection: socket.socket) -> bool:
    """Returns True if the server has closed a connection; reads all data before."""
    connection.settimeout(0)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    return True
