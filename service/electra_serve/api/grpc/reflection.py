"""gRPC's server reflection, as grpcurl and grpcui use it.

The package's servicer keeps a stream open for as long as its client does, so one idle client would make each shutdown
last its full grace. Here the streams end with the server, and `StreamSlots` limits their number.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Collection

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from electra_serve.api.grpc.stream_slots import StreamSlots, TooManyStreams

NAME = reflection.SERVICE_NAME
"""The protocol's own service name."""

ReflectionContext = grpc.aio.ServicerContext[
    reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
]


class Reflection:
    """Describes the services of the server.

    Args:
        services: Their names.
    """

    def __init__(self, services: Collection[str]) -> None:
        self._servicer = reflection.aio.ReflectionServicer(services)
        self._slots = StreamSlots("reflection streams")
        self._open: set[asyncio.Timeout] = set()

    def close(self) -> None:
        """Ends every stream."""
        now = asyncio.get_running_loop().time()
        for until in self._open:
            until.reschedule(now)

    def handler(self) -> grpc.GenericRpcHandler:
        """The method, for a server to add."""
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                    self._describe,
                    request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
                    response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
                )
            },
        )

    async def _describe(
        self, requests: AsyncIterable[reflection_pb2.ServerReflectionRequest], context: ReflectionContext
    ) -> None:
        try:
            with self._slots.hold(context.peer()):
                await self._respond_until_closed(requests, context)
        except TooManyStreams as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    async def _respond_until_closed(
        self, requests: AsyncIterable[reflection_pb2.ServerReflectionRequest], context: ReflectionContext
    ) -> None:
        try:
            async with asyncio.timeout(None) as until:
                self._open.add(until)
                try:
                    responses = self._servicer.ServerReflectionInfo(requests, context)
                    async for response in responses:  # type: ignore[attr-defined]  # a generator, which its stub omits
                        await context.write(response)
                finally:
                    self._open.discard(until)
        except TimeoutError:
            return  # the server stops
