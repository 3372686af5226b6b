"""gRPC's own services, health and reflection, as any client calls them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2


def health_of(channel: grpc.Channel, service: str = "") -> str:
    """The health of a service, or of the whole server: `SERVING`, `NOT_SERVING`, …"""
    check: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    status = check(health_pb2.HealthCheckRequest(service=service), timeout=60).status
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def reflect(
    channel: grpc.Channel, requests: Iterable[reflection_pb2.ServerReflectionRequest]
) -> Iterator[reflection_pb2.ServerReflectionResponse]:
    """Asks a server about itself."""
    ask: grpc.StreamStreamMultiCallable[reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse]
    ask = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return iter(ask(iter(requests), timeout=60))
