"""gRPC's server reflection, as grpcurl and grpcui use it.

The package's servicer keeps a stream open for as long as its client does, so one idle client would make each shutdown
last its full grace. Here the streams end with the server, and `StreamSlots` limits their number.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import TypeAlias

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from electra_serve.api.grpc import status
from electra_serve.api.grpc.parsing import parse_small
from electra_serve.api.grpc.stream_slots import StreamSlots, TooManyStreams
from electra_serve.api.grpc.transfer import uncancelled
from electra_serve.errors import ServiceError

NAME = reflection.SERVICE_NAME
"""The protocol's own service name."""

Request: TypeAlias = reflection_pb2.ServerReflectionRequest
ReflectionContext = grpc.aio.ServicerContext[bytes, reflection_pb2.ServerReflectionResponse]


class Reflection:
    """Describes the services of the server.

    Args:
        services: Their names.
    """

    def __init__(self, services: Collection[str]) -> None:
        self._servicer = reflection.aio.ReflectionServicer(services)
        self._slots = StreamSlots("reflection streams")
        self._reading: set[asyncio.Timeout] = set()
        self._closed = False

    def close(self) -> None:
        """Ends every stream, after the response that it writes."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for until in self._reading:
            until.reschedule(now)

    def handler(self) -> grpc.GenericRpcHandler:
        """The method, for a server to add."""
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                    self._describe,
                    response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
                )
            },
        )

    async def _describe(self, requests: AsyncIterator[bytes], context: ReflectionContext) -> None:
        try:
            with self._slots.hold(context.peer()):
                responses = self._servicer.ServerReflectionInfo(self._until_closed(requests), context)
                async for response in responses:  # type: ignore[attr-defined]  # a generator, which its stub omits
                    await context.write(response)
        except TooManyStreams as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except ServiceError as error:
            await context.abort(status.code_of(error), error.message)

    async def _until_closed(self, requests: AsyncIterator[bytes]) -> AsyncIterator[Request]:
        """Yields requests until the client or the server ends the stream."""
        with contextlib.suppress(StopAsyncIteration, TimeoutError):
            while not self._closed:
                yield await self._next(requests)

    async def _next(self, requests: AsyncIterator[bytes]) -> Request:
        """Only waiting for a request may be interrupted: gRPC cannot end a call while a write is under way."""
        async with asyncio.timeout(None) as until:
            self._reading.add(until)
            try:
                data = await uncancelled(anext(requests))
            finally:
                self._reading.discard(until)
        return parse_small(Request, data)
