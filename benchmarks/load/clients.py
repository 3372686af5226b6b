"""Clients over both transports that send many requests at a time and record the outcome of each.

They are lean enough to send thousands of requests a second from one core and do not use the service's own client.
`ask` never raises: every outcome is a code.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

import grpc
import grpc.aio
import uvloop

from benchmarks.load.http_connection import HttpConnection, HttpResponse, post_request

HOST: Final = "127.0.0.1"
ENCODE_METHOD: Final = "/electra.v1.EncoderService/Encode"
CHANNEL_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
"""A connection of its own for each channel, and responses of any size."""
OK: Final = "ok"
WRONG: Final = "wrong"
"""A response with other numbers than those of its request."""
HUNG: Final = "hung"
"""No response within the client's patience."""
UNREACHABLE: Final = "unreachable"
"""No connection, or one that ended without a response."""
CHANNELS: Final = 4


class Request(Protocol):
    """A request as each transport sends it, and the code of a response to it."""

    @property
    def request_id(self) -> str:
        """Id that the service logs; "" sends none."""

    def rest(self) -> bytes:
        """Returns the JSON body."""

    def grpc(self) -> bytes:
        """Returns the serialized `EncodeRequest`."""

    def rest_code(self, body: bytes) -> str:
        """Returns the code of a JSON response, such as `OK` or `WRONG`."""

    def grpc_code(self, message: bytes) -> str:
        """Returns the code of a serialized `EncodeResponse`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request and its outcome.

    Attributes:
        transport: `rest` or `grpc`.
        request_id: The request's.
        sent_s: Time of sending, on the machine's monotonic clock.
        seconds: Duration until the response.
        code: A constant of this module, a code of `Request`, or an error's slug.
        retry_after_s: Delay that the service asked for, if it sent one (REST: with its header).
    """

    transport: str
    request_id: str
    sent_s: float
    seconds: float
    code: str
    retry_after_s: float | None = None

    @property
    def ended_s(self) -> float:
        """Time of the response."""
        return self.sent_s + self.seconds


class Client(Protocol):
    """Sends requests over one transport."""

    async def ask(self, request: Request, *, timeout_ms: int | None = None) -> Outcome:
        """Sends one request and waits for its outcome.

        Args:
            request: The request.
            timeout_ms: Deadline that the service is sent, as its transport has it.
        """

    async def close(self) -> None:
        """Closes the connections."""


class _Exchange(HttpConnection):
    """A connection whose response is awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.open = True
        self._response: asyncio.Future[bytes]

    async def exchange(self, request: bytes) -> HttpResponse:
        """Sends a request and waits for the response.

        Raises:
            ConnectionError: The connection ended first.
        """
        self._response = asyncio.get_running_loop().create_future()
        try:
            self.send(request)
            response = await self._response
        except BaseException:
            self.close()
            raise
        if self.closing:
            self.close()
        return HttpResponse.parse(response)

    def responded(self, response: bytes) -> None:
        if not self._response.done():
            self._response.set_result(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.waiting and not self._response.done():
            self._response.set_exception(ConnectionError(str(exc)))

    def close(self) -> None:
        self.open = False
        self.transport.close()


class RestClient:
    """HTTP/1.1 with as many connections as requests in flight.

    Args:
        port: Port of the service.
        source: Address to connect from.
        headers: Headers of each request.
        patience_s: Time after which a request counts as hung.
    """

    def __init__(
        self, port: int, *, source: str = HOST, headers: Mapping[str, str] | None = None, patience_s: float = 60.0
    ) -> None:
        self._port = port
        self._source = source
        self._headers = dict(headers or {})
        self._patience_s = patience_s
        self._idle: deque[_Exchange] = deque()

    async def ask(self, request: Request, *, timeout_ms: int | None = None) -> Outcome:
        """See `Client.ask`."""
        headers = dict(self._headers)
        if timeout_ms is not None:
            headers["x-request-timeout-ms"] = str(timeout_ms)
        if request.request_id:
            headers["x-request-id"] = request.request_id
        data = post_request(request.rest(), headers=headers)
        sent_s, retry_after_s = time.monotonic(), None
        try:
            async with asyncio.timeout(self._patience_s):
                response = await self._exchange(data)
        except TimeoutError:
            code = HUNG
        except OSError:
            code = UNREACHABLE
        else:
            seconds = time.monotonic() - sent_s
            code, retry_after_s = _verdict(request, response)
            return Outcome("rest", request.request_id, sent_s, seconds, code, retry_after_s)
        return Outcome("rest", request.request_id, sent_s, time.monotonic() - sent_s, code)

    async def close(self) -> None:
        """See `Client.close`."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, data: bytes) -> HttpResponse:
        connection = await self._connect()
        response = await connection.exchange(data)
        if connection.open:
            self._idle.append(connection)
        return response

    async def _connect(self) -> _Exchange:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(_Exchange, HOST, self._port, local_addr=(self._source, 0))
        return made


def _verdict(request: Request, response: HttpResponse) -> tuple[str, float | None]:
    """Code of a response, and the delay that it asks for."""
    if response.status == "200":
        return request.rest_code(response.body), None
    if response.headers.get("content-type") != "application/problem+json":
        return f"HTTP {response.status}: {response.body[:80]!r}", None
    problem = json.loads(response.body)
    return problem["code"], problem.get("retry_after_s") if "retry-after" in response.headers else None


class GrpcClient:
    """gRPC over a few connections.

    Args:
        port: Port of the service.
        metadata: Metadata of each request.
        patience_s: Time after which a request counts as hung; the service does not see it.
    """

    def __init__(self, port: int, *, metadata: Mapping[str, str] | None = None, patience_s: float = 60.0) -> None:
        self._channels = deque(grpc.aio.insecure_channel(f"{HOST}:{port}", CHANNEL_OPTIONS) for _ in range(CHANNELS))
        self._metadata = tuple((metadata or {}).items())
        self._patience_s = patience_s

    async def ask(self, request: Request, *, timeout_ms: int | None = None) -> Outcome:
        """See `Client.ask`."""
        self._channels.rotate()
        encode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channels[0].unary_unary(ENCODE_METHOD)
        timeout_s = None if timeout_ms is None else timeout_ms / 1e3
        data, retry_after_s = request.grpc(), None
        sent_s = time.monotonic()
        try:
            async with asyncio.timeout(self._patience_s):
                message = await encode(data, timeout=timeout_s, metadata=self._metadata or None)
        except TimeoutError:
            code = HUNG
        except grpc.aio.AioRpcError as error:
            code, retry_after_s = _rejection(error)
        else:
            seconds = time.monotonic() - sent_s
            return Outcome("grpc", request.request_id, sent_s, seconds, request.grpc_code(message))
        return Outcome("grpc", request.request_id, sent_s, time.monotonic() - sent_s, code, retry_after_s)

    async def close(self) -> None:
        """See `Client.close`."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


def _rejection(error: grpc.aio.AioRpcError) -> tuple[str, float | None]:
    metadata = {name: str(value) for name, value in error.trailing_metadata() or ()}
    without_slug = UNREACHABLE if error.code() is grpc.StatusCode.UNAVAILABLE else error.code().name.lower()
    pushback_ms = metadata.get("grpc-retry-pushback-ms")
    slug = metadata.get("electra-error-code", without_slug)
    return slug, None if pushback_ms is None else int(pushback_ms) / 1e3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Transport, address and credentials of a client; picklable for other processes.

    Attributes:
        transport: `rest` or `grpc`.
        port: Port of the service.
        source: Address to connect from; REST only.
        api_key: API key; "" sends none.
        patience_s: Time after which a request counts as hung.
    """

    transport: str
    port: int
    source: str = HOST
    api_key: str = ""
    patience_s: float = 60.0

    @classmethod
    def both(cls, rest_port: int, grpc_port: int) -> tuple[Self, Self]:
        """Returns one for each transport."""
        return cls("rest", rest_port), cls("grpc", grpc_port)

    def client(self) -> Client:
        """Makes the client, on the event loop that runs it."""
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        if self.transport == "rest":
            return RestClient(self.port, source=self.source, headers=headers, patience_s=self.patience_s)
        return GrpcClient(self.port, metadata=headers, patience_s=self.patience_s)


async def ask_all(endpoints: Sequence[Endpoint], requests: Sequence[Request]) -> list[Outcome]:
    """Sends all requests at once, over the endpoints in turn; returns outcomes in the order of the requests."""
    clients = [endpoint.client() for endpoint in endpoints]
    asked = (clients[number % len(clients)].ask(request) for number, request in enumerate(requests))
    outcomes = await asyncio.gather(*asked)
    await asyncio.gather(*(client.close() for client in clients))
    return outcomes


async def closed_loop(
    endpoints: Sequence[Endpoint],
    clients: int,
    requests: Iterator[Request],
    *,
    while_ok: bool = False,
    outcomes: list[Outcome] | None = None,
) -> list[Outcome]:
    """Runs clients that send their next request after the last response, until there are no more requests.

    Args:
        endpoints: Endpoints of the clients, in turn.
        clients: Number of requests in flight.
        requests: Shared by all clients.
        while_ok: A client ends at its first outcome other than `OK`.
        outcomes: List to append to; default: a new one.

    Returns:
        Outcomes in the order in which they came.
    """
    found = [] if outcomes is None else outcomes
    connected = [endpoint.client() for endpoint in endpoints]

    async def run(client: Client) -> None:
        for request in requests:
            found.append(await client.ask(request))
            if while_ok and found[-1].code != OK:
                return

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(run(connected[number % len(connected)]))
    await asyncio.gather(*(client.close() for client in connected))
    return found


@dataclass
class BackgroundLoad:
    """A closed loop on a thread of its own, for as long as the context lasts.

    Attributes:
        endpoints: See `closed_loop`.
        clients: See `closed_loop`.
        requests: See `closed_loop`.
        while_ok: See `closed_loop`.
        outcomes: Outcomes so far.
    """

    endpoints: Sequence[Endpoint]
    clients: int
    requests: Iterator[Request]
    while_ok: bool = True
    outcomes: list[Outcome] = field(default_factory=list)
    _stopped: bool = False

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), name="load")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()

    def answered(self, *codes: str, transport: str = "") -> int:
        """Counts outcomes of any of `codes`, over one transport or both."""
        return sum(found.code in codes and transport in {"", found.transport} for found in self.outcomes.copy())

    def request_ids(self, code: str) -> set[str]:
        """Returns the ids of the requests with this outcome."""
        return {found.request_id for found in self.outcomes.copy() if found.code == code}

    def codes(self) -> set[str]:
        """Returns every code so far."""
        return {found.code for found in self.outcomes.copy()}

    async def _run(self) -> None:
        requests = iter(lambda: None if self._stopped else next(self.requests, None), None)
        await closed_loop(self.endpoints, self.clients, requests, while_ok=self.while_ok, outcomes=self.outcomes)
