"""The transports behind one interface: it takes a request and returns an `Outcome`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

import grpc
import httpx
from fastapi import FastAPI

from electra_serve.api.rest.app import create_app
from electra_serve.observability.requests import RequestObserver
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from tests.contract import oip, oip_grpc, read
from tests.contract.outcome import GRPC_STATUS, HTTP_STATUS, Outcome
from tests.contract.query import Query, Wire, to_json, to_message
from tests.contract.stack import Stack
from tests.fakes import transit_budget
from tests.serving import grpc_server, rest_server

Lines: TypeAlias = tuple[tuple[str, str], ...]
Metadata: TypeAlias = Mapping[str, str] | Lines
NOTHING: Final[Metadata] = MappingProxyType({})

SERVICE: Final = "/electra.v1.EncoderService"
NATIVE_SIDES: Final = ("rest", "grpc", "stream")
SIDES: Final = (*NATIVE_SIDES, "oip", "oip-binary", "oip-grpc", "oip-stream")
ALL_SIDES: Final = ("base64", *SIDES, "oip-typed")
SOCKET_SIDES: Final = ("http", "grpc", "stream", "oip-http", "oip-grpc", "oip-stream")
"""Transports whose clients can disconnect."""
MAX_STREAMS: Final = 128
"""More requests than any test has in flight."""


class Side(Protocol):
    """One way to the service."""

    @property
    def transport(self) -> str:
        """Name in metrics, such as `rest`."""

    @property
    def statuses(self) -> Mapping[str, int | str]:
        """The protocol's own status of each code; empty if single requests have none."""

    def render(self, query: Query) -> Wire:
        """The request as this side writes it."""

    async def send(self, wire: Wire, timeout_s: float | None = None, metadata: Metadata = NOTHING) -> Outcome:
        """Sends bytes, right or wrong, and waits for what comes of them.

        Args:
            wire: What to send.
            timeout_s: The client's deadline.
            metadata: Headers, or a call's metadata.
        """


class RestSide:
    """The real FastAPI application, in process.

    Args:
        client: Speaks to it.
        encoding_format: Format of numbers in the response.
    """

    transport = "rest"
    statuses: Mapping[str, int | str] = HTTP_STATUS

    def __init__(self, client: httpx.AsyncClient, encoding_format: str) -> None:
        self._client = client
        self._encoding_format = encoding_format

    def render(self, query: Query) -> Wire:
        return to_json(query, self._encoding_format)

    async def send(self, wire: Wire, timeout_s: float | None = None, metadata: Metadata = NOTHING) -> Outcome:
        headers = (("content-type", wire.content_type), *_lines(metadata))
        if timeout_s is not None:
            headers += (("x-request-timeout-ms", str(int(timeout_s * 1e3))),)
        return read.response(await self._client.post("/v1/encode", content=wire.data, headers=headers))


class OipSide:
    """The Open Inference Protocol of the real FastAPI application.

    Args:
        client: Speaks to it.
        as_bytes: Tensors are bytes after the JSON, both ways.
    """

    transport = "oip_rest"
    statuses: Mapping[str, int | str] = oip.STATUS

    def __init__(self, client: httpx.AsyncClient, *, as_bytes: bool = False) -> None:
        self._client = client
        self._as_bytes = as_bytes

    def render(self, query: Query) -> Wire:
        return oip.to_wire(query, as_bytes=self._as_bytes)

    async def send(self, wire: Wire, timeout_s: float | None = None, metadata: Metadata = NOTHING) -> Outcome:
        sent = wire if isinstance(wire, oip.OipWire) else oip.OipWire(wire.data, wire.content_type)
        headers = (("content-type", wire.content_type), *sent.headers, *_lines(metadata))
        if timeout_s is not None:
            headers += (("x-request-timeout-ms", str(int(timeout_s * 1e3))),)
        path = f"/v2/models/{sent.model}/infer"
        return oip.response(await self._client.post(path, content=wire.data, headers=headers), wire)


class GrpcSide:
    """`Encode`, called with bytes.

    Args:
        channel: Leads to the real server.
    """

    transport = "grpc"
    method = f"{SERVICE}/Encode"
    statuses: Mapping[str, int | str] = GRPC_STATUS

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def render(self, query: Query) -> Wire:
        return to_message(query)

    async def send(self, wire: Wire, timeout_s: float | None = None, metadata: Metadata = NOTHING) -> Outcome:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(self.method)
        try:
            return self._read(await call(wire.data, timeout=timeout_s, metadata=_lines(metadata)))
        except grpc.aio.AioRpcError as error:
            return read.rpc_error(error)

    def _read(self, response: bytes) -> Outcome:
        return read.message(response)


class StreamSide(GrpcSide):
    """`EncodeStream`, one request to a stream.

    grpc.aio's client reports INTERNAL if a server ends a stream just before its first message is sent, whatever the
    status. So each stream is called from a thread.
    """

    method = f"{SERVICE}/EncodeStream"
    statuses: Mapping[str, int | str] = MappingProxyType({})

    def __init__(self, channel: grpc.Channel, threads: Executor) -> None:
        self._blocking = channel
        self._threads = threads

    async def send(self, wire: Wire, timeout_s: float | None = None, metadata: Metadata = NOTHING) -> Outcome:
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = self._blocking.stream_stream(self.method)
        call = method(iter([self._item(wire)]), timeout=timeout_s, metadata=_lines(metadata))
        try:
            messages = await asyncio.get_running_loop().run_in_executor(self._threads, list, call)
        except grpc.RpcError:
            return read.rpc_error(call)
        finally:
            call.cancel()
        assert len(messages) == 1, "each request of a stream gets one response"
        return self._read(messages[0])

    def _item(self, wire: Wire) -> bytes:
        """One `EncodeStreamRequest` around bytes that may be no message."""
        named = pb.EncodeRequest(request_id="r1").SerializeToString() + wire.data
        return b"\x0a" + _varint(len(named)) + named

    def _read(self, response: bytes) -> Outcome:
        return read.stream_response(response)


class OipGrpcSide(GrpcSide):
    """`ModelInfer` with raw contents."""

    transport = oip_grpc.TRANSPORT
    method = f"{oip_grpc.SERVICE}/ModelInfer"

    def render(self, query: Query) -> Wire:
        return oip_grpc.to_raw(query)

    def _read(self, response: bytes) -> Outcome:
        return oip_grpc.response(response, raw=True)


class OipTypedSide(OipGrpcSide):
    """`ModelInfer` with typed contents."""

    def render(self, query: Query) -> Wire:
        return oip_grpc.to_typed(query)

    def _read(self, response: bytes) -> Outcome:
        return oip_grpc.response(response, raw=False)


class OipStreamSide(StreamSide):
    """`ModelStreamInfer`, one request to a stream."""

    transport = oip_grpc.TRANSPORT
    method = f"{oip_grpc.SERVICE}/ModelStreamInfer"

    def render(self, query: Query) -> Wire:
        return oip_grpc.to_raw(query)

    def _item(self, wire: Wire) -> bytes:
        return wire.data

    def _read(self, response: bytes) -> Outcome:
        return oip_grpc.stream_response(response)


GRPC_SIDES: Final[Mapping[str, type[GrpcSide]]] = MappingProxyType(
    {
        "grpc": GrpcSide,
        "stream": StreamSide,
        "oip-grpc": OipGrpcSide,
        "oip-typed": OipTypedSide,
        "oip-stream": OipStreamSide,
    }
)


def connect(stack: Stack, name: str) -> AbstractAsyncContextManager[Side]:
    """Serves `stack` for as long as the context is open.

    Args:
        stack: What to serve.
        name: One of `ALL_SIDES`, or `http` or `oip-http`: REST over a real socket.
    """
    match name:
        case "rest":
            return _rest(stack, partial(RestSide, encoding_format="float"))
        case "base64":
            return _rest(stack, partial(RestSide, encoding_format="base64"))
        case "oip":
            return _rest(stack, OipSide)
        case "oip-binary":
            return _rest(stack, partial(OipSide, as_bytes=True))
        case "http":
            return _http(stack, partial(RestSide, encoding_format="float"))
        case "oip-http":
            return _http(stack, OipSide)
        case _:
            return _grpc(stack, GRPC_SIDES[name])


@asynccontextmanager
async def _rest(stack: Stack, side: Callable[[httpx.AsyncClient], Side]) -> AsyncIterator[Side]:
    transport = httpx.ASGITransport(application(stack), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://rest.test") as client:
        yield side(client)


@asynccontextmanager
async def _http(stack: Stack, side: Callable[[httpx.AsyncClient], Side]) -> AsyncIterator[Side]:
    async with (
        rest_server(application(stack), stack.settings.rest) as (_, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield side(client)


def application(stack: Stack) -> FastAPI:
    """The REST application over `stack`."""
    return create_app(
        stack.service,
        stack.settings.rest,
        stack.metrics,
        RequestObserver("rest", stack.metrics, stack.log),
        max_sequences=stack.settings.max_sequences,
        budget=transit_budget(),
        authenticator=stack.authenticator,
        apis=stack.settings.apis,
        oip=stack.oip("oip_rest"),
    )


@asynccontextmanager
async def _grpc(stack: Stack, side: type[GrpcSide]) -> AsyncIterator[Side]:
    observer = RequestObserver("grpc", stack.metrics, stack.log)
    settings = stack.settings
    async with grpc_server(
        stack.service,
        settings.grpc,
        observer,
        max_sequences=settings.max_sequences,
        authenticator=stack.authenticator,
        oip=stack.oip(oip_grpc.TRANSPORT),
    ) as (_, port):
        target = f"127.0.0.1:{port}"
        if issubclass(side, StreamSide):
            with ThreadPoolExecutor(MAX_STREAMS) as threads, grpc.insecure_channel(target) as blocking:
                yield side(blocking, threads)
        else:
            async with grpc.aio.insecure_channel(target) as channel:
                yield side(channel)


def _lines(metadata: Metadata) -> Lines:
    return tuple(metadata.items()) if isinstance(metadata, Mapping) else metadata


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
