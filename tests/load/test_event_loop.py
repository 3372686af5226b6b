"""No single request keeps the event loop: what is long is rejected early, or done on the decoding thread."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Final

import grpc
import pytest
import structlog
from structlog.testing import CapturingLogger

from benchmarks.load.clients import CHANNEL_OPTIONS, ENCODE_METHOD, HOST
from benchmarks.stand_in.script import Script
from benchmarks.stand_in.service import load_stand_in
from electra_serve.api.grpc.health import NAME as HEALTH_NAME
from electra_serve.api.grpc.servicer import SERVICE_NAME
from electra_serve.api.oip.parts import OipParts
from electra_serve.api.rest.app import create_app
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.requests import RequestObserver
from electra_serve.observability.statistics import read_statistics
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.server.models import build_manager
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.service import InferenceService
from electra_serve.settings.schema import GrpcSettings, ModelSettings, RestSettings, Settings
from tests.fakes import text_encoder, transit_budget
from tests.load.conftest import Report
from tests.load.loop_time import measured
from tests.load.worst_inputs import WorstInput, get_model_inputs, grpc_inputs, health_inputs, rest_inputs
from tests.serving import grpc_server, rest_server

SCRIPT: Final = Script(batch_s=0.001, position_s=1e-8)
SETTINGS: Final = Settings(
    models=(ModelSettings(preset=DEMO_ID),), rest=RestSettings(port=0), grpc=GrpcSettings(port=0)
)
MAX_CALLBACK_S: Final = 0.005
REPEATS: Final = 5
REST: Final = "rest"
GET_MODEL: Final = f"/{SERVICE_NAME}/GetModel"
HEALTH: Final = f"/{HEALTH_NAME}/Check"
TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of both transports."""

    rest: int
    grpc: int


@pytest.fixture
async def ports(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ports]:
    """The service on this event loop, at default limits, with the stand-in's engine."""
    for name, value in SCRIPT.environment.items():
        monkeypatch.setenv(name, value)
    metrics, log = Metrics("test"), structlog.wrap_logger(CapturingLogger(), [])
    registry = ModelRegistry(SETTINGS.models)
    manager = build_manager(SETTINGS, registry, metrics, log, load=load_stand_in)
    await manager.load_all()
    async with _serving(InferenceService(registry, text_encoder()), metrics, log) as listening:
        yield listening
    await manager.close(TIMEOUT_S)


@asynccontextmanager
async def _serving(
    service: InferenceService, metrics: Metrics, log: structlog.typing.FilteringBoundLogger
) -> AsyncIterator[Ports]:
    most, thread = SETTINGS.max_sequences, WorkThread("decoder")
    observe = partial(RequestObserver, metrics=metrics, log=log, log_requests=False)
    budget = transit_budget()
    app = create_app(
        service,
        SETTINGS.rest,
        metrics,
        observe("rest"),
        max_sequences=most,
        budget=budget,
        thread=thread,
        oip=OipParts(observe("oip_rest"), partial(read_statistics, metrics)),
    )
    async with (
        rest_server(app, SETTINGS.rest) as (_, rest),
        grpc_server(service, SETTINGS.grpc, observe("grpc"), max_sequences=most, budget=budget, thread=thread) as (
            _,
            port,
        ),
    ):
        yield Ports(rest, port)


INPUTS: Final[dict[str, Callable[[int], Iterable[WorstInput]]]] = {
    REST: rest_inputs,
    ENCODE_METHOD: grpc_inputs,
    GET_MODEL: get_model_inputs,
    HEALTH: health_inputs,
}


@pytest.mark.parametrize(
    ("repeats", "scale"), [pytest.param(1, 8, id="short"), pytest.param(REPEATS, 1, id="long", marks=pytest.mark.long)]
)
async def test_the_worst_requests(repeats: int, scale: int, ports: Ports, report: Report) -> None:
    longest: dict[str, float] = {}
    gc.freeze()  # objects of other tests would make each collection take a second
    for method, inputs in INPUTS.items():
        for worst in inputs(scale):
            took = [await _longest_s(method, worst, ports) for _ in range(repeats)]
            longest[f"{method}, {worst.name}"] = min(took)
    gc.unfreeze()
    slowest = sorted(longest, key=lambda name: -longest[name])
    for name in slowest[:12]:
        report(f"{name}: {longest[name] * 1e3:.1f} ms of CPU time in one callback")
    exceeded = {name: round(took, 4) for name, took in longest.items() if took > MAX_CALLBACK_S}
    report.promise(not exceeded, f"callbacks exceed {MAX_CALLBACK_S} s: {exceeded}")


async def _longest_s(method: str, worst: WorstInput, ports: Ports) -> float:
    """Sends one request, checks its response, and returns the CPU seconds of the longest callback."""
    ask = partial(_ask_rest, ports.rest) if method == REST else partial(_ask_grpc, ports.grpc, method)
    gc.collect()
    gc.disable()  # a collection of this process' objects is no part of a request
    try:
        with measured() as loop_time:
            code = await asyncio.to_thread(ask, worst.data)
    finally:
        gc.enable()
    assert code == worst.code, worst.name
    return loop_time.longest_s


def _ask_rest(port: int, data: bytes) -> str:
    """Sends bytes and returns the status of the response, which may come before all of them are sent."""
    with socket.create_connection((HOST, port), timeout=TIMEOUT_S) as connection:
        sender = Thread(target=_send, args=(connection, data))
        sender.start()
        received = b""
        while (at := received.find(b"\r\n\r\n")) < 0 and (piece := connection.recv(2**16)):
            received += piece
        length = int(received.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        left = length + at + 4 - len(received)
        while left > 0 and (piece := connection.recv(2**16)):
            left -= len(piece)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        sender.join()
    return received[9:12].decode()


def _send(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # rejected before its end
        connection.sendall(data)


def _ask_grpc(port: int, method: str, message: bytes) -> str:
    with grpc.insecure_channel(f"{HOST}:{port}", CHANNEL_OPTIONS) as channel:
        encode: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        try:
            encode(message, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"
