"""A real server on a free port, over a fake service, and a channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest
import structlog

from electra_serve.api.grpc.codec import Codec
from electra_serve.api.grpc.connections import PeerCalls
from electra_serve.api.grpc.message_reader import MessageReader
from electra_serve.api.grpc.server import GrpcServer
from electra_serve.api.grpc.transfer import Transfer
from electra_serve.api.oip.parts import OipParts
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.requests import RequestObserver
from electra_serve.observability.statistics import read_statistics
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.transit_budget import TransitBudget
from electra_serve.settings.schema import GrpcSettings
from tests.fake_service import FakeService
from tests.fakes import transit_budget
from tests.serving import grpc_server

if TYPE_CHECKING:
    from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceAsyncStub

SETTINGS = GrpcSettings(port=0, max_stream_requests=2, max_request_bytes=4096, max_message_bytes=8192)
MAX_SEQUENCES = 8
BUDGET_BYTES = 2**20


def transfer(send_timeout_s: float = 30.0) -> Transfer:
    """Limits that no test but those about them reaches."""
    return Transfer(
        transit_budget(BUDGET_BYTES),
        MessageReader(),
        max_request_bytes=4096,
        receive_timeout_s=10.0,
        send_timeout_s=send_timeout_s,
        calls=PeerCalls(),
    )


def codec() -> Codec:
    """Limits that no test but those about them reaches."""
    return Codec(WorkThread("decoder"), max_sequences=8, max_response_bytes=2**20)


def observer(
    metrics: Metrics | None = None, log: structlog.testing.LogCapture | None = None, *, transport: str = "grpc"
) -> RequestObserver:
    """An observer that writes to `metrics` and `log`."""
    logger = structlog.wrap_logger(
        None,
        processors=[log or structlog.testing.LogCapture()],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    return RequestObserver(transport, metrics or Metrics("0"), logger)


def raw_call(channel: grpc.aio.Channel, method: str, data: bytes) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
    """Calls a method with any bytes."""
    caller: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return caller(data)


@dataclass(frozen=True, slots=True)
class Running:
    """A server, what it serves, and a way to it."""

    server: GrpcServer
    service: FakeService
    metrics: Metrics
    log: structlog.testing.LogCapture
    channel: grpc.aio.Channel
    port: int
    budget: TransitBudget

    @property
    def stub(self) -> EncoderServiceAsyncStub:
        return EncoderServiceStub(self.channel)

    def raw(self, method: str, data: bytes) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        """Calls a method with any bytes."""
        return raw_call(self.channel, method, data)

    def count(self, code: str, model: str = "tiny", transport: str = "grpc") -> float:
        """Returns the number of requests that the metrics have counted."""
        labels = {"model": model, "transport": transport, "code": code}
        value = self.metrics.registry.get_sample_value("electra_requests_total", labels)
        return value or 0.0

    def in_flight(self, transport: str = "grpc") -> float:
        """Returns the number of requests in flight, by the metrics."""
        return self.metrics.registry.get_sample_value("electra_requests_in_flight", {"transport": transport}) or 0.0


@pytest.fixture
def settings() -> GrpcSettings:
    return SETTINGS


@pytest.fixture
async def running(settings: GrpcSettings) -> AsyncIterator[Running]:
    async with serve(settings) as served:
        yield served


@asynccontextmanager
async def serve(
    settings: GrpcSettings,
    *,
    oip: bool = False,
    authenticator: Authenticator = ALLOW_ALL,
    service: FakeService | None = None,
) -> AsyncIterator[Running]:
    """Serves a fake service, with the Open Inference Protocol or without."""
    service, metrics, log = service or FakeService(), Metrics("0"), structlog.testing.LogCapture()
    budget = transit_budget(BUDGET_BYTES)
    parts = OipParts(observer(metrics, log, transport="oip_grpc"), partial(read_statistics, metrics)) if oip else None
    async with (
        grpc_server(
            service,
            settings,
            observer(metrics, log),
            max_sequences=MAX_SEQUENCES,
            budget=budget,
            authenticator=authenticator,
            oip=parts,
        ) as (server, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Running(server, service, metrics, log, channel, port, budget)
