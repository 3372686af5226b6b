"""grpc.health.v1, as probes and load balancers speak it.

Written out, because the package's own servicer holds every Watch open until a stopping server cuts it off, so
that one watching client makes each shutdown last its full grace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import grpc
from grpc_health.v1 import health_pb2

NAME = "grpc.health.v1.Health"
"""The protocol's own service name."""

HealthContext = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]


class Health:
    """One status for the whole server, under the names of its services and "".

    Starts as NOT_SERVING.

    Args:
        services: The services that the status stands for.
    """

    def __init__(self, services: Collection[str]) -> None:
        self._services = frozenset(("", *services))
        self._serving = False
        self._closed = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Tells everyone who asks or watches."""
        self._serving = serving
        self._wake()

    def close(self) -> None:
        """Says NOT_SERVING for good and ends every Watch."""
        self._serving = False
        self._closed = True
        self._wake()

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods, for a server to add."""
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "Check": grpc.unary_unary_rpc_method_handler(
                    self._check,
                    request_deserializer=health_pb2.HealthCheckRequest.FromString,
                    response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
                ),
                "Watch": grpc.unary_stream_rpc_method_handler(
                    self._watch,
                    request_deserializer=health_pb2.HealthCheckRequest.FromString,
                    response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
                ),
            },
        )

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse:
        response = health_pb2.HealthCheckResponse
        if service not in self._services:
            return response(status=response.SERVICE_UNKNOWN)
        return response(status=response.SERVING if self._serving else response.NOT_SERVING)

    async def _check(
        self, request: health_pb2.HealthCheckRequest, context: HealthContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service of that name")
        return self._status(request.service)

    async def _watch(self, request: health_pb2.HealthCheckRequest, context: HealthContext) -> None:
        sent = None
        while True:
            changed, closed, status = self._changed, self._closed, self._status(request.service)
            if status != sent:
                await context.write(status)
                sent = status
            if closed:
                return
            await changed.wait()
