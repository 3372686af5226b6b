"""End of the process after a part of it fails."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import structlog
from structlog.testing import capture_logs

from electra_serve.api.grpc.server import GrpcServer
from electra_serve.api.rest.server import HttpListener
from electra_serve.batching.clock import LoopClock
from electra_serve.engine.factory import LoadedModel
from electra_serve.errors import PresetError, StartupError
from electra_serve.observability.metrics import Metrics
from electra_serve.runtime.memory import MemoryTrimmer
from electra_serve.server.event_loop import EventLoopLag
from electra_serve.server.lifecycle import EXIT_FAULT, ServiceProcess
from electra_serve.server.models import build_manager
from electra_serve.serving.registry import ModelRegistry
from electra_serve.settings.schema import BatchingSettings, ModelSettings, Settings
from tests.fakes import loaded_model

SOON_S = 30.0
"""For what takes no time, however busy the machine is."""


class FakeRest(HttpListener):
    """Serves until it is stopped, or a test breaks it."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def listen(self) -> int:
        return 1

    def serve(self) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self._serve())
        return self._task

    async def _serve(self) -> None:
        await self.ended

    async def stop(self, grace_s: float | None = None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        await self._task

    def disconnect_stalled(self) -> None:
        """No client stalls."""

    def abort(self) -> None:
        """Nothing is in flight."""


class FakeGrpc(GrpcServer):
    """Has a call in flight until the test lets it end."""

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self.stopping = asyncio.Event()
        self.graces_s: list[float] = []
        self.set_serving_raises = False
        self.serving: list[bool] = []

    async def start(self) -> int:
        return 2

    def set_serving(self, serving: bool) -> None:
        if serving and self.set_serving_raises:
            raise RuntimeError("health broke")
        self.serving.append(serving)

    async def stop(self, grace_s: float) -> None:
        self.graces_s.append(grace_s)
        self.stopping.set()
        await self.idle.wait()


@dataclass
class Stage:
    """A process of fake servers over a fake model.

    Attributes:
        gate: Loading waits for it.
        bad: True if the model cannot be loaded.
        announced: Set once it is announced as ready.
    """

    gate: threading.Event = field(default_factory=threading.Event)
    bad: bool = False
    announced: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.rest, self.grpc = FakeRest(), FakeGrpc()
        settings = Settings(models=(ModelSettings(preset="one"),))
        log, metrics = structlog.get_logger(), Metrics("test")
        self.registry = ModelRegistry(settings.models)
        trimmer = MemoryTrimmer()
        self.process = ServiceProcess(
            rest=self.rest,
            grpc=self.grpc,
            auxiliary_servers=(),
            registry=self.registry,
            manager=build_manager(settings, self.registry, metrics, log, load=self.load),
            trimmer=trimmer,
            settings=settings.lifecycle,
            log=log,
            event_loop_lag=EventLoopLag(LoopClock(), metrics.event_loop_lag, log),
            on_ready=lambda *_: self.announced.set(),
        )

    def load(self, _: ModelSettings, __: BatchingSettings) -> LoadedModel:
        self.gate.wait(SOON_S)
        if self.bad:
            raise PresetError("no such preset")
        return loaded_model()


@pytest.fixture(autouse=True)
def _unfrozen() -> Iterator[None]:
    """A ready process freezes its objects; those of other tests must not be frozen."""
    yield
    gc.unfreeze()


@pytest.mark.parametrize("error", [RuntimeError("REST broke"), None])
async def test_a_rest_server_that_ends_by_itself_is_a_fault_and_grpc_finishes_accepted_requests(
    error: Exception | None,
) -> None:
    stage = Stage()
    stage.grpc.idle.clear()
    async with asyncio.timeout(SOON_S):
        running = asyncio.create_task(stage.process.run())
        await stage.announced.wait()
        with capture_logs() as logs:
            stage.rest.ended.set_exception(error) if error else stage.rest.ended.set_result(None)
            await stage.grpc.stopping.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            stage.grpc.idle.set()
            assert await running == EXIT_FAULT
    assert len(stage.grpc.graces_s) == 1, "it was not stopped again, at once"
    assert "in-flight requests aborted" not in [entry["event"] for entry in logs]
    assert [(entry["part"], entry["exc_info"]) for entry in logs if entry["log_level"] == "critical"] == [
        ("REST", error)
    ]


async def test_nothing_is_announced_when_rest_ends_while_models_load() -> None:
    stage = Stage()
    stage.gate.clear()
    async with asyncio.timeout(SOON_S):
        running = asyncio.create_task(stage.process.run())
        await asyncio.sleep(0)
        stage.rest.ended.set_exception(RuntimeError("REST broke"))
        assert await running == EXIT_FAULT, "it does not wait for the model either"
    stage.gate.set()
    assert not stage.announced.is_set()


async def test_a_watch_over_models_that_breaks_is_a_fault() -> None:
    stage = Stage()
    stage.gate.clear()
    stage.grpc.set_serving_raises = True
    stage.registry.started = True  # so that it is the watch which finds it ready first
    async with asyncio.timeout(SOON_S):
        with capture_logs() as logs:
            assert await stage.process.run() == EXIT_FAULT
    stage.gate.set()
    assert [entry["part"] for entry in logs if entry["log_level"] == "critical"] == ["model watch"]


async def test_a_start_that_fails_leaves_no_task_behind() -> None:
    stage = Stage(bad=True)
    before = asyncio.all_tasks()
    async with asyncio.timeout(SOON_S):
        with pytest.raises(StartupError):
            await stage.process.run()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_health_follows_readiness_in_the_next_event_loop_iteration() -> None:
    stage = Stage()
    async with asyncio.timeout(SOON_S):
        running = asyncio.create_task(stage.process.run())
        await stage.announced.wait()
        batcher = stage.registry.ready_model(None).batcher
        for stalled in (True, False):
            batcher._set_stalled(stalled)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert stage.grpc.serving[-1] is not stalled
        before = len(stage.grpc.serving)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(stage.grpc.serving) == before, "nothing is polled"
        stage.rest.ended.set_result(None)
        assert await running == EXIT_FAULT
    assert stage.grpc.serving[-1] is False
