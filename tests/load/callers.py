"""Callers on either transport, many requests at a time, who take down what came of each and how long it took.

They are asyncio's, lean enough to send thousands of requests a second from one core, and know nothing of the service's
own client. `ask` never raises: whatever happens to a request is its code.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, Self, TypeAlias

import grpc
import grpc.aio

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from tests.load.payload import Payload

HOST: Final = "127.0.0.1"
ENCODE_METHOD: Final = "/electra.v1.EncoderService/Encode"
OK: Final = "ok"
WRONG: Final = "wrong"
"""Answered, with other numbers than those of this request."""
HUNG: Final = "hung"
"""Not answered within the caller's patience."""
UNREACHABLE: Final = "unreachable"
"""No connection, or one that ended without an answer."""
CHANNELS: Final = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    Attributes:
        code: One of those above, or an error's slug.
        seconds: How long it took.
        retry_after_s: When to come back: of REST's body where it has a Retry-After header too, of gRPC's pushback.
    """

    code: str
    seconds: float
    retry_after_s: float | None = None


class Caller(Protocol):
    """Asks over one transport."""

    async def ask(self, payload: Payload, *, timeout_ms: int | None = None) -> Answer:
        """Sends one request and waits for what comes of it.

        Args:
            payload: What to ask.
            timeout_ms: A deadline to tell the service of, in the transport's own way.
        """

    async def close(self) -> None:
        """Ends its connections."""


Connection: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RestCaller:
    """HTTP/1.1 with as many connections as requests are in flight.

    Args:
        port: Where the service is.
        source: The address to call from.
        headers: Sent with each request.
        patience_s: When a request counts as hung.
    """

    def __init__(
        self,
        port: int,
        *,
        source: str = HOST,
        headers: Mapping[str, str] | None = None,
        patience_s: float = 60.0,
    ) -> None:
        self._port = port
        self._source = source
        self._head = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._patience_s = patience_s
        self._idle: deque[Connection] = deque()

    async def ask(self, payload: Payload, *, timeout_ms: int | None = None) -> Answer:
        """See `Caller.ask`."""
        body = payload.rest()
        deadline = "" if timeout_ms is None else f"x-request-timeout-ms: {timeout_ms}\r\n"
        head = f"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{self._head}{deadline}"
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience_s):
                status, headers, answer = await self._exchange(
                    f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
                )
        except TimeoutError:
            return Answer(HUNG, time.perf_counter() - began)
        except (OSError, EOFError):
            return Answer(UNREACHABLE, time.perf_counter() - began)
        seconds = time.perf_counter() - began
        if status == "200":
            return Answer(OK if payload.is_answered_by_rest(answer) else WRONG, seconds)
        if headers.get("content-type") != "application/problem+json":
            return Answer(f"HTTP {status}: {answer[:80]!r}", seconds)
        problem = json.loads(answer)
        return Answer(problem["code"], seconds, problem.get("retry_after_s") if "retry-after" in headers else None)

    async def close(self) -> None:
        """See `Caller.close`."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _exchange(self, request: bytes) -> tuple[str, Mapping[str, str], bytes]:
        connection = await self._connect()
        try:
            connection[1].write(request)
            status, headers, body = await _read_answer(connection[0])
        except BaseException:
            connection[1].close()
            raise
        if headers.get("connection") == "close":
            connection[1].close()
        else:
            self._idle.append(connection)
        return status, headers, body

    async def _connect(self) -> Connection:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return await asyncio.open_connection(HOST, self._port, local_addr=(self._source, 0))


async def _read_answer(reader: asyncio.StreamReader) -> tuple[str, Mapping[str, str], bytes]:
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers["content-length"]))
    return status_line.split()[1], headers, body


class GrpcCaller:
    """gRPC over a few connections.

    Args:
        port: Where the service is.
        metadata: Sent with each request.
        patience_s: When a request counts as hung; no deadline that the service would hear of.
    """

    def __init__(self, port: int, *, metadata: Mapping[str, str] | None = None, patience_s: float = 60.0) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self._channels = deque(grpc.aio.insecure_channel(f"{HOST}:{port}", options) for _ in range(CHANNELS))
        self._metadata = tuple((metadata or {}).items())
        self._patience_s = patience_s

    async def ask(self, payload: Payload, *, timeout_ms: int | None = None) -> Answer:
        """See `Caller.ask`."""
        self._channels.rotate()
        encode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channels[0].unary_unary(ENCODE_METHOD)
        deadline_s = None if timeout_ms is None else timeout_ms / 1e3
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience_s):
                data = await encode(
                    payload.message().SerializeToString(), timeout=deadline_s, metadata=self._metadata or None
                )
        except TimeoutError:
            return Answer(HUNG, time.perf_counter() - began)
        except grpc.aio.AioRpcError as error:
            return _refused(error, time.perf_counter() - began)
        seconds = time.perf_counter() - began
        answer = pb.EncodeResponse.FromString(data)
        return Answer(OK if payload.is_answered_by_grpc(answer) else WRONG, seconds)

    async def close(self) -> None:
        """See `Caller.close`."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


def _refused(error: grpc.aio.AioRpcError, seconds: float) -> Answer:
    metadata = {name: str(value) for name, value in error.trailing_metadata() or ()}
    without_slug = UNREACHABLE if error.code() is grpc.StatusCode.UNAVAILABLE else error.code().name.lower()
    pushback_ms = metadata.get("grpc-retry-pushback-ms")
    return Answer(
        metadata.get("electra-error-code", without_slug),
        seconds,
        None if pushback_ms is None else int(pushback_ms) / 1e3,
    )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where, over what and as whom to call; enough for another process to know.

    Attributes:
        transport: `rest` or `grpc`.
        port: Where the service is.
        source: The address to call from; REST only.
        api_key: Sent where it is not "".
        patience_s: When a request counts as hung.
    """

    transport: str
    port: int
    source: str = HOST
    api_key: str = ""
    patience_s: float = 60.0

    @classmethod
    def both(cls, rest_port: int, grpc_port: int) -> tuple[Self, Self]:
        """One for each transport."""
        return cls("rest", rest_port), cls("grpc", grpc_port)

    def caller(self) -> Caller:
        """Makes the caller; on the event loop that will run it."""
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        if self.transport == "rest":
            return RestCaller(self.port, source=self.source, headers=headers, patience_s=self.patience_s)
        return GrpcCaller(self.port, metadata=headers, patience_s=self.patience_s)


async def at_random_times(
    rate: float, until_s: float, gap_s: Callable[[float], float], send: Callable[[], Coroutine[None, None, None]]
) -> float:
    """Calls `send` as a Poisson process does, whether or not what it sent before has been answered.

    Args:
        rate: Calls per second, in the mean.
        until_s: When to stop, on the machine's monotonic clock.
        gap_s: Draws the time to the next call, given the rate.
        send: Not awaited before the next; all are at the end.

    Returns:
        How late the latest call was, in seconds: what this process' own load did to the times.
    """
    due, latest_s = time.monotonic(), 0.0
    async with asyncio.TaskGroup() as sent:
        while (due := due + gap_s(rate)) < until_s:
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            latest_s = max(latest_s, time.monotonic() - due)
            sent.create_task(send())
    return latest_s
