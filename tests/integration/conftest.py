"""One real process for the whole session, and the model that it serves."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import httpx
import pytest

from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.integration.process import ServiceProcess, start


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A process that serves `electra_demo`, started like `make run` does, and ready."""
    with start(tmp_path_factory.mktemp("service"), "--log.format=json") as process:
        process.wait_ready()
        yield process


@pytest.fixture(scope="session")
def scraped_before_traffic(service: ServiceProcess) -> str:
    """`/metrics` as it was before the first request."""
    return httpx.get(f"{service.url}/metrics").text


@pytest.fixture
def rest(service: ServiceProcess, scraped_before_traffic: str) -> Iterator[httpx.Client]:
    """A connection over HTTP."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture
def channel(service: ServiceProcess, scraped_before_traffic: str) -> Iterator[grpc.Channel]:
    """A connection over gRPC."""
    with grpc.insecure_channel(service.target) as connected:
        yield connected


@pytest.fixture
def stub(channel: grpc.Channel) -> EncoderServiceStub:
    """The generated stub."""
    return EncoderServiceStub(channel)
