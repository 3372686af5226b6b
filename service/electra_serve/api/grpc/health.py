"""grpc.health.v1 for probes and load balancers.

With the package's own servicer, a watching client makes each shutdown last its full grace, and watches are unlimited.
The message of a unary method would be buffered before its handler runs. So the methods are client streams for gRPC, on
the same wire format. They receive their message through a `Receiver`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from electra_serve.api.grpc import status
from electra_serve.api.grpc.call import Context
from electra_serve.api.grpc.core_operations import uncancelled
from electra_serve.api.grpc.parsing import parse_small
from electra_serve.api.grpc.receiver import Receiver
from electra_serve.api.grpc.stream_slots import StreamSlots, TooManyStreams
from electra_serve.errors import ServiceError

SERVICE: Final[ServiceDescriptor] = health_pb2.DESCRIPTOR.services_by_name["Health"]  # type: ignore[assignment]  # the stub has its C class
NAME: Final = SERVICE.full_name


class Health:
    """One status for the whole server, under the names of its services and ""; NOT_SERVING at first."""

    def __init__(self, services: Collection[str], receiver: Receiver) -> None:
        self._receiver = receiver
        self._services = frozenset(("", *services))
        self._serving = False
        self._closed = False
        self._changed = asyncio.Event()
        self._watches = StreamSlots("watches")

    def set_serving(self, serving: bool) -> None:
        """Sets the status, and wakes every Watch if it changes."""
        if serving != self._serving:
            self._serving = serving
            self._wake()

    def close(self) -> None:
        """Reports NOT_SERVING from now on and ends every Watch."""
        self._serving = False
        self._closed = True
        self._wake()

    def handler(self) -> grpc.GenericRpcHandler:
        """Returns the handler of the methods."""
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "Check": grpc.stream_unary_rpc_method_handler(self._check),
                "Watch": grpc.stream_stream_rpc_method_handler(self._watch),
            },
        )

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> bytes:
        response = health_pb2.HealthCheckResponse
        if service not in self._services:
            return response(status=response.SERVICE_UNKNOWN).SerializeToString()
        return response(status=response.SERVING if self._serving else response.NOT_SERVING).SerializeToString()

    async def _check(self, _: AsyncIterator[bytes], context: Context) -> bytes:
        service = await self._service(context)
        if service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service of that name")
        return self._status(service)

    async def _watch(self, _: AsyncIterator[bytes], context: Context) -> None:
        try:
            with self._watches.hold(context.peer()):
                await self._report_changes(await self._service(context), context)
        except TooManyStreams as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    async def _service(self, context: Context) -> str:
        """Receives the name in a request; ends the call if there is none."""
        try:
            return parse_small(health_pb2.HealthCheckRequest, await self._receiver.receive(context)).service
        except ServiceError as error:
            await context.abort(status.code_of(error), error.message)

    async def _report_changes(self, service: str, context: Context) -> None:
        sent = None
        while True:
            changed, closed, current = self._changed, self._closed, self._status(service)
            if current != sent:
                await uncancelled(context.write(current))
                sent = current
            if closed:
                return
            await changed.wait()
