"""An HTTP port from binding to the end."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from electra_serve.api.rest.base_app import bare_app
from electra_serve.api.rest.server import HttpListener, HttpServer
from electra_serve.errors import StartupError
from electra_serve.settings.schema import RestSettings
from tests.fakes import connection_table

HALF_A_HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"


def make_listener(port: int = 0) -> HttpListener:
    server = HttpServer(bare_app("Nothing."), RestSettings(), connection_table())
    return HttpListener("admin", server, host="127.0.0.1", port=port)


async def test_it_responds_from_its_start_to_its_stop() -> None:
    listener = make_listener()
    number = listener.listen()
    serving = listener.serve()
    async with httpx.AsyncClient() as client:
        response = await client.get(f"http://127.0.0.1:{number}/openapi.json")
        assert response.status_code == 200
        await listener.stop()
        assert serving.done()
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{number}/openapi.json")


async def test_a_taken_port_is_reported_by_its_name() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(StartupError, match="admin cannot listen on"):
        make_listener(taken.getsockname()[1]).listen()


async def test_a_stop_waits_no_longer_than_it_may() -> None:
    listener = make_listener()
    number = listener.listen()
    serving = listener.serve()
    _, writer = await asyncio.open_connection("127.0.0.1", number)
    writer.write(HALF_A_HEAD)
    await writer.drain()
    await listener.stop(grace_s=0.2)
    assert serving.done()
    writer.close()


async def test_what_never_served_is_stopped_at_once() -> None:
    listener = make_listener()
    with pytest.raises(RuntimeError):
        listener.serve()
    await listener.stop()
