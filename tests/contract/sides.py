"""The transports behind one interface: it takes a request and returns an `Outcome`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

import grpc
import httpx
from fastapi import FastAPI

from electra_serve.api.oip.parts import OipParts
from electra_serve.api.rest.app import create_app
from electra_serve.observability.requests import RequestObserver
from electra_serve.observability.statistics import read_statistics
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from tests.contract import oip, read
from tests.contract.outcome import GRPC_STATUS, HTTP_STATUS, Outcome
from tests.contract.query import Query, Wire, to_json, to_message
from tests.contract.stack import Stack
from tests.fakes import transit_budget
from tests.serving import grpc_server, rest_server

Lines: TypeAlias = tuple[tuple[str, str], ...]
Metadata: TypeAlias = Mapping[str, str] | Lines
NOTHING: Final[Metadata] = MappingProxyType({})

SERVICE: Final = "/electra.v1.EncoderService"
SIDES: Final = ("rest", "grpc", "stream", "oip", "oip-binary")
ALL_SIDES: Final = ("rest", "base64", "grpc", "stream", "oip", "oip-binary")
SOCKET_SIDES: Final = ("http", "grpc", "stream", "oip-http")
"""Transports whose clients can disconnect."""


class Side(Protocol):
    """One way to the service."""

    @property
    def transport(self) -> str:
        """Name in metrics."""

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
    statuses: Mapping[str, int | str] = GRPC_STATUS

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def render(self, query: Query) -> Wire:
        return to_message(query)

    async def send(self, wire: Wire, timeout_s: float | None = None, metadata: Metadata = NOTHING) -> Outcome:
        encode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(f"{SERVICE}/Encode")
        try:
            return read.message(await encode(wire.data, timeout=timeout_s, metadata=_lines(metadata)))
        except grpc.aio.AioRpcError as error:
            return read.rpc_error(error)


class StreamSide(GrpcSide):
    """`EncodeStream`, one request to a stream."""

    statuses: Mapping[str, int | str] = MappingProxyType({})

    async def send(self, wire: Wire, timeout_s: float | None = None, metadata: Metadata = NOTHING) -> Outcome:
        method = f"{SERVICE}/EncodeStream"
        encode: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(method)
        try:
            messages = [message async for message in encode(_items(wire), timeout=timeout_s, metadata=_lines(metadata))]
        except grpc.aio.AioRpcError as error:
            return read.rpc_error(error)
        assert len(messages) == 1, "each request of a stream gets one response"
        return read.stream_response(messages[0])


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
        case "grpc":
            return _grpc(stack, GrpcSide)
        case _:
            return _grpc(stack, StreamSide)


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
        oip=OipParts(RequestObserver("oip_rest", stack.metrics, stack.log), partial(read_statistics, stack.metrics)),
    )


@asynccontextmanager
async def _grpc(stack: Stack, side: type[GrpcSide]) -> AsyncIterator[Side]:
    observer = RequestObserver("grpc", stack.metrics, stack.log)
    settings = stack.settings
    async with (
        grpc_server(
            stack.service,
            settings.grpc,
            observer,
            max_sequences=settings.max_sequences,
            authenticator=stack.authenticator,
        ) as (_, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield side(channel)


def _lines(metadata: Metadata) -> Lines:
    return tuple(metadata.items()) if isinstance(metadata, Mapping) else metadata


async def _items(wire: Wire) -> AsyncIterator[bytes]:
    """One `EncodeStreamRequest` around bytes that may be no message."""
    named = pb.EncodeRequest(request_id="r1").SerializeToString() + wire.data
    yield b"\x0a" + _varint(len(named)) + named


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
