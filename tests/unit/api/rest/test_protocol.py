"""The server's own bounds, over real sockets: heads, what is left of bodies, connections, and what is no HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import FunctionType

import orjson
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from electra_serve.api.connections import surplus_of
from electra_serve.api.rest.protocol import MAX_HEADERS, MIN_CHUNK_BYTES, BoundedHttpProtocol
from electra_serve.api.rest.server import HttpServer
from electra_serve.errors import Overloaded
from electra_serve.settings.schema import RestSettings
from tests.serving import rest_server
from tests.unit.api.rest.conftest import Rest
from tests.waiting import until

LIVEZ = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
ENCODE = b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
CHUNKED = ENCODE.replace(b"content-length: %d", b"transfer-encoding: chunked")
IDS = b'{"token_ids":[[1]]}'
SOON_S = 0.05
WAIT_S = 10.0


@dataclass
class Connection:
    """A client's side of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Sends bytes, and reads one answer: its status, headers and body."""
        self.writer.write(request)
        return await self.response()

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(WAIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def responses(self) -> list[int]:
        """Returns the statuses of all responses before the server closes the connection."""
        statuses = []
        with suppress(asyncio.IncompleteReadError):
            while True:
                statuses.append((await self.response())[0])
        return statuses

    async def closed(self) -> bool:
        """Waits for the server to close it, whatever comes before that."""
        async with asyncio.timeout(WAIT_S):
            with suppress(ConnectionResetError):
                await self.reader.read()
            return True


@dataclass
class Server:
    """A running server, and the connections to it."""

    rest: Rest
    http: HttpServer
    port: int
    connections: list[Connection] = field(default_factory=list)

    async def connect(self) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self.port))
        self.connections.append(connection)
        await until(lambda: len(self.http.server_state.connections) >= 1)
        return connection

    async def busy(self) -> Connection:
        """A connection whose request is being worked on."""
        self.rest.service.gate.clear()
        working = len(self.rest.service.requests) + 1
        connection = await self.connect()
        connection.writer.write(ENCODE % len(IDS) + IDS)
        await until(lambda: len(self.rest.service.requests) == working)
        return connection


@asynccontextmanager
async def serve(**settings: float) -> AsyncIterator[Server]:
    rest, limits = Rest(), RestSettings(**settings)  # type: ignore[arg-type]
    async with rest_server(rest.app(limits), limits) as (http, port):
        server = Server(rest, http, port)
        try:
            yield server
        finally:
            rest.service.gate.set()
            for connection in server.connections:
                connection.writer.close()


async def test_a_head_has_its_time() -> None:
    async with serve(body_timeout_s=SOON_S) as server:
        silent, slow = await server.connect(), await server.connect()
        slow.writer.write(LIVEZ[:-2])
        assert await silent.closed()
        assert await slow.closed()


async def test_the_next_head_has_its_time_from_its_first_byte_on() -> None:
    async with serve(body_timeout_s=SOON_S) as server:
        connection = await server.connect()
        for _ in range(2):
            assert (await connection.ask(LIVEZ))[0] == 200
            await asyncio.sleep(2 * SOON_S)
        connection.writer.write(LIVEZ[:10])
        assert await connection.closed()


async def test_a_head_that_is_too_long_is_rejected_in_the_common_form() -> None:
    async with serve(max_head_bytes=1000) as server:
        fits = LIVEZ[:-2] + b"x: " + b"a" * (1000 - len(LIVEZ) - 5) + b"\r\n\r\n"
        assert (await (await server.connect()).ask(fits))[0] == 200
        status, headers, body = await (await server.connect()).ask(LIVEZ[:-2] + b"x: " + b"a" * 1000)
        assert (status, headers["connection"], headers["x-content-type-options"]) == (431, "close", "nosniff")
        assert orjson.loads(body)["status"] == 431


@pytest.mark.parametrize("trailers", [False, True])
async def test_headers_are_limited_in_number_trailers_included(trailers: bool) -> None:
    async with serve() as server:
        for number, status in ((MAX_HEADERS, 200), (MAX_HEADERS + 1, 431), (50_000, 431)):
            connection = await server.connect()
            if trailers:
                head = CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(IDS), IDS)
                lines = b"a:\r\n" * (number - 3)  # those of the head
            else:
                head, lines = LIVEZ[:-2], b"a:\r\n" * (number - 1)
            assert (await connection.ask(head + lines + b"\r\n"))[0] == status


async def test_chunks_are_limited_in_number() -> None:
    async with serve() as server:
        most = RestSettings().max_body_bytes // MIN_CHUNK_BYTES
        body = IDS + b" " * (most - len(IDS) + 1)
        for chunks, status in ((most, 200), (most + 1, 400)):
            pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body[:chunks])
            got, _, response = await (await server.connect()).ask(CHUNKED + pieces + b"0\r\n\r\n")
            assert got == status
        assert (
            orjson.loads(response)["detail"]
            == f"a body must have at most {most} chunks; received more: send larger ones"
        )


async def test_small_bodies_may_have_small_chunks() -> None:
    async with serve(max_body_bytes=len(IDS)) as server:
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in IDS)
        assert (await (await server.connect()).ask(CHUNKED + pieces + b"0\r\n\r\n"))[0] == 200


def head_of(length: int, *, target: bool = False) -> bytes:
    """A head of so many bytes, most of them in its target or else in a header."""
    before, after = (b"GET /livez?", b" HTTP/1.1\r\nhost: x\r\n\r\n") if target else (LIVEZ[:-2] + b"x: ", b"\r\n\r\n")
    return before + b"a" * (length - len(before) - len(after)) + after


@pytest.mark.parametrize("target", [True, False])
async def test_a_whole_head_in_one_piece_is_bounded_from_both_sides(target: bool) -> None:
    async with serve(max_head_bytes=1000) as server:
        for length, status in ((1000, 200), (1001, 431), (10_000, 431)):
            assert (await (await server.connect()).ask(head_of(length, target=target)))[0] == status


async def test_a_head_that_begins_in_the_piece_of_another_request_counts_alone() -> None:
    async with serve(max_head_bytes=1000) as server:
        connection = await server.connect()
        for head in (LIVEZ, LIVEZ[:-2] + b"x: " + b"a" * 1000 + b"\r\n\r\n"):
            server.rest.service.full = Overloaded("full")
            padded = IDS + b" " * 2000
            assert (await connection.ask(ENCODE % len(padded)))[0] == 429
            status = 200 if head == LIVEZ else 431
            connection.writer.write(padded + head[:20])
            await asyncio.sleep(SOON_S)
            assert (await connection.ask(head[20:]))[0] == status


@pytest.mark.parametrize(
    "request_", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"EVIL \x1b[31m\r\n\r\n", b"GET / HTTP/9\r\n\r\n"]
)
async def test_what_is_no_http_is_rejected_in_the_common_form_and_not_repeated(request_: bytes) -> None:
    async with serve() as server:
        connection = await server.connect()
        status, headers, body = await connection.ask(request_)
        assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert orjson.loads(body)["code"] == "malformed_request"
        assert b"EVIL" not in body
        assert await connection.closed()


async def test_the_rest_of_a_body_after_an_early_response_has_its_time() -> None:
    async with serve(body_timeout_s=SOON_S) as server:
        server.rest.service.full = Overloaded("full")
        connection = await server.connect()
        assert (await connection.ask(ENCODE % 1000 + b"{"))[0] == 429
        assert await connection.closed()


async def test_a_connection_stays_open_after_an_early_response() -> None:
    async with serve(body_timeout_s=10 * SOON_S) as server:
        server.rest.service.full = Overloaded("full")
        connection = await server.connect()
        assert (await connection.ask(ENCODE % len(IDS)))[0] == 429
        server.rest.service.full = None
        assert (await connection.ask(IDS + ENCODE % len(IDS) + IDS))[0] == 200
        assert (await connection.ask(LIVEZ))[0] == 200


LONG = LIVEZ[:-2] + b"x: " + b"a" * 1000
BAD_BODY = CHUNKED + b"no length\r\n"
BROKEN_LATE = CHUNKED + b"%x\r\n%s\r\n" % (100_000, b" " * 100_000) + b"no length\r\n"
BEHIND = [LIVEZ, LIVEZ * 100, LIVEZ[:1], ENCODE % len(IDS) + IDS, b"no http\r\n\r\n", LONG, BAD_BODY, BROKEN_LATE]


@pytest.mark.parametrize("behind", BEHIND, ids=range(len(BEHIND)))
@pytest.mark.parametrize("apart", [False, True])
async def test_the_first_request_gets_its_response_and_the_connection_closes(behind: bytes, apart: bool) -> None:
    async with serve(max_head_bytes=1000) as server:
        server.rest.service.gate.clear()
        connection = await server.connect()
        connection.writer.write(ENCODE % len(IDS) + IDS + (b"" if apart else behind))
        await until(lambda: len(server.rest.service.requests) == 1)
        connection.writer.write(behind if apart else LIVEZ)
        assert (await (await server.connect()).ask(LIVEZ))[0] == 200, "by now the server has read it"
        server.rest.service.gate.set()
        status, headers, _ = await connection.response()
        assert (status, headers["connection"]) == (200, "close")
        assert await connection.responses() == []
        assert len(server.rest.service.requests) == 1


@pytest.mark.parametrize("behind", BEHIND, ids=range(len(BEHIND)))
async def test_a_client_that_leaves_more_requests_behind_is_noticed(behind: bytes) -> None:
    async with serve() as server:
        connection = await server.busy()
        connection.writer.write(behind)
        connection.writer.close()
        await until(lambda: server.rest.service.cancelled == 1)
        assert (await (await server.connect()).ask(LIVEZ))[0] == 200
        assert len(server.rest.service.requests) == 1


async def test_line_ends_behind_a_request_are_no_request() -> None:
    async with serve() as server:
        connection = await server.connect()
        for _ in range(2):
            status, headers, _ = await connection.ask(ENCODE % len(IDS) + IDS + b"\r\n")
            assert (status, headers.get("connection")) == (200, None)


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n" * 1000])
async def test_an_idle_connection_has_its_time_whatever_line_ends_it_sends(sent: bytes) -> None:
    async with serve() as server:
        server.http.config.timeout_keep_alive = SOON_S  # type: ignore[assignment]
        connection = await server.connect()
        assert (await connection.ask(LIVEZ))[0] == 200
        connection.writer.write(sent)
        assert await connection.closed()


async def test_an_idle_connection_has_its_time_after_an_early_response() -> None:
    async with serve() as server:
        server.http.config.timeout_keep_alive = SOON_S  # type: ignore[assignment]
        server.rest.service.full = Overloaded("full")
        connection = await server.connect()
        assert (await connection.ask(ENCODE % len(IDS)))[0] == 429
        await asyncio.sleep(3 * SOON_S)  # the rest of a body has more time than this
        connection.writer.write(IDS)
        assert await connection.closed()


async def test_a_broken_body_is_rejected_once() -> None:
    async with serve() as server:
        connection = await server.connect()
        connection.writer.write(BAD_BODY)
        assert await connection.responses() == [400]
        server.rest.service.full = Overloaded("full")
        head, _, broken = BAD_BODY.partition(b"no")
        connection = await server.connect()
        assert (await connection.ask(head))[0] == 429
        connection.writer.write(b"no" + broken)
        assert await connection.responses() == []


OFFERS = {
    "h2c": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    "websocket": b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "several": b"upgrade: TLS/1.0, foo/2\r\nconnection: keep-alive, Upgrade\r\n",
    "close": b"connection: upgrade, close\r\nupgrade: h2c\r\n",
}
BODIES = {
    "length": ENCODE % len(IDS) + IDS,
    "chunked": CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(IDS), IDS),
    "trailer": CHUNKED + b"%x\r\n%s\r\n0\r\nx-trailer: 1\r\n\r\n" % (len(IDS), IDS),
    "none": MODELS,
    "empty": MODELS[:-2] + b"content-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("step", [1, 97, 10_000])
async def test_an_upgrade_offer_is_ignored(offer: str, body: str, step: int) -> None:
    request = BODIES[body].replace(b"host: x\r\n", b"host: x\r\n" + OFFERS[offer])
    async with serve() as server:
        connection = await server.connect()
        for repetition in range(1, 2 if offer == "close" else 4):
            for start in range(0, len(request), step):
                connection.writer.write(request[start : start + step])
                await asyncio.sleep(0)
            status, headers, _ = await connection.response()
            assert (status, "upgrade" in headers) == (200, False)
            assert len(server.rest.service.requests) == (repetition if b"encode" in request else 0)
        if offer == "close":
            assert await connection.closed()
        else:
            assert (await connection.ask(LIVEZ))[0] == 200


@pytest.mark.parametrize("offer", OFFERS)
async def test_a_body_behind_an_upgrade_offer_keeps_its_limits(offer: str) -> None:
    def offered(request: bytes) -> bytes:
        return request.replace(b"host: x\r\n", b"host: x\r\n" + OFFERS[offer])

    async with serve(max_body_bytes=1000, max_head_bytes=1000, body_timeout_s=SOON_S) as server:
        assert (await (await server.connect()).ask(offered(ENCODE % 1001)))[0] == 413
        assert (await (await server.connect()).ask(offered(ENCODE % 100 + b"{")))[0] == 408
        for broken in (BAD_BODY, ENCODE.replace(b"content-length: %d", b"transfer-encoding: gzip") + IDS):
            assert (await (await server.connect()).ask(offered(broken)))[0] == 400
        connection = await server.connect()
        connection.writer.write(offered(CHUNKED) + b"%x\r\n%s\r\n0\r\n" % (len(IDS), IDS))
        for _ in range(4):
            connection.writer.write(b"x-trailer: " + b"a" * 1000 + b"\r\n")
        assert await connection.closed()
        assert not server.rest.service.requests


async def test_an_upgrade_offer_with_an_early_response_is_ignored() -> None:
    request = ENCODE.replace(b"host: x\r\n", b"host: x\r\n" + OFFERS["h2c"]) % len(IDS)
    async with serve() as server:
        server.rest.service.full = Overloaded("full")
        connection = await server.connect()
        assert (await connection.ask(request))[0] == 429
        assert (await connection.ask(IDS + request))[0] == 429
        server.rest.service.full = None
        assert (await connection.ask(IDS + request + IDS))[0] == 200


@pytest.mark.parametrize("tunneled", [b"", b"\x16\x03\x01", LIVEZ])
async def test_a_tunnel_is_rejected_in_the_common_form(tunneled: bytes) -> None:
    async with serve() as server:
        connection = await server.connect()
        request = b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n"
        connection.writer.write(request + tunneled)
        async with asyncio.timeout(WAIT_S):
            head, _, body = (await connection.reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 405 ")
        assert {b"allow: ", b"connection: close"} <= set(head.split(b"\r\n"))
        assert orjson.loads(body)["code"] == "method_not_allowed"


async def test_trailers_are_bounded_and_not_kept() -> None:
    async with serve(max_body_bytes=1000, max_head_bytes=1000) as server:
        connection = await server.connect()
        body = b"%x\r\n%s\r\n0\r\n" % (len(IDS), IDS)
        assert (await connection.ask(CHUNKED + body + b"x-priority: %s\r\n\r\n" % (b"a" * 500)))[0] == 200
        connection.writer.write(CHUNKED + body)
        for _ in range(4):
            connection.writer.write(b"x-trailer: " + b"a" * 1000 + b"\r\n")
            await asyncio.sleep(0.01)
        assert await connection.closed()
        assert (await (await server.connect()).ask(LIVEZ))[0] == 200


async def test_the_longest_idle_connection_makes_room() -> None:
    async with serve(max_connections=3) as server:
        first, second, third = [await server.connect() for _ in range(3)]
        for connection in (first, second, third, first):
            assert (await connection.ask(LIVEZ))[0] == 200
        assert (await (await server.connect()).ask(MODELS))[0] == 200
        assert await second.closed()
        for connection in (first, third):
            assert (await connection.ask(LIVEZ))[0] == 200


async def test_a_connection_that_has_said_nothing_makes_room_too() -> None:
    async with serve(max_connections=2) as server:
        silent, busy = await server.connect(), await server.busy()
        assert (await (await server.connect()).ask(MODELS))[0] == 200
        assert await silent.closed()
        server.rest.service.gate.set()
        assert (await busy.response())[0] == 200


async def test_where_all_are_at_work_a_newcomer_may_ask_the_probes_alone() -> None:
    async with serve(max_connections=2) as server:
        busy = [await server.busy() for _ in range(2)]
        newcomer = await server.connect()
        for path in (b"/livez", b"/readyz", b"/metrics"):
            assert (await newcomer.ask(LIVEZ.replace(b"/livez", path)))[0] == 200
        status, headers, body = await newcomer.ask(MODELS)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert orjson.loads(body)["code"] == "overloaded"
        assert await newcomer.closed()
        server.rest.service.gate.set()
        assert [(await connection.response())[0] for connection in busy] == [200, 200]
        assert (await (await server.connect()).ask(MODELS))[0] == 200


async def test_far_too_many_newcomers_are_not_heard() -> None:
    async with serve(max_connections=1) as server:
        busy = await server.busy()
        newcomers = [await server.connect() for _ in range(surplus_of(1) + 8)]
        await until(lambda: len(server.http.server_state.connections) <= 1 + surplus_of(1))
        server.rest.service.gate.set()
        assert (await busy.response())[0] == 200
        assert len(newcomers) > surplus_of(1)


async def test_a_client_that_does_not_read_its_last_response_is_aborted() -> None:
    async with serve(send_timeout_s=SOON_S) as server:
        connection = await server.connect()
        sock = connection.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        ids = b'{"token_ids":[[%s]]}' % b",".join([b"1"] * 1500)
        head = (ENCODE % len(ids)).replace(b"host: x", b"host: x\r\nconnection: close")
        connection.writer.write(head + ids)
        await until(lambda: len(server.rest.service.requests) == 1)
        await until(lambda: not server.http.server_state.connections)


async def test_a_client_that_half_closes_is_taken_for_one_that_left() -> None:
    async with serve() as server:
        connection = await server.busy()
        connection.writer.write_eof()
        await until(lambda: server.rest.service.cancelled == 1)
        assert await connection.closed()
        await until(lambda: server.rest.counted(model="electra_demo", code="cancelled") == 1)
        assert (await (await server.connect()).ask(LIVEZ))[0] == 200


@pytest.mark.parametrize("path", [b"/livez", b"/metrics", b"/v1/models", b"/no", b"/v1/encode"])
async def test_no_body_follows_the_response_to_head(path: bytes) -> None:
    async with serve() as server:
        connection = await server.connect()
        connection.writer.write(LIVEZ.replace(b"GET /livez", b"HEAD " + path))
        async with asyncio.timeout(WAIT_S):
            head = await connection.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 0\r\n" not in head
        assert (await connection.ask(LIVEZ))[0] == 200


async def test_a_request_without_one_host_is_rejected_and_the_connection_goes_on() -> None:
    async with serve() as server:
        connection = await server.connect()
        for hosts in (b"", b"host: x\r\nhost: y\r\n"):
            status, headers, _ = await connection.ask(LIVEZ.replace(b"host: x\r\n", hosts))
            assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert (await connection.ask(LIVEZ))[0] == 200
        assert (await connection.ask(b"GET /livez HTTP/1.0\r\n\r\n"))[0] == 200


def test_no_private_name_of_uvicorns_protocol_is_used_or_replaced() -> None:
    private = {name for name in vars(HttpToolsProtocol) if name.startswith("_") and not name.endswith("__")}
    methods = [member for member in vars(BoundedHttpProtocol).values() if isinstance(member, FunctionType)]
    used = {name for method in methods for name in method.__code__.co_names} | vars(BoundedHttpProtocol).keys()
    assert private
    assert not private & used
