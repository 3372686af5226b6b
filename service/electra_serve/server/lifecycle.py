"""Life of the process: start, ready, drain, stop.

    listen ─ load models ─ READY ─ (signal) ─ not ready ─ drain_delay_s ─ reject connections,
    finish requests in flight (≤ drain_timeout_s) ─ close engines ─ stop admin and metrics ─ exit

An engine that failed for good ends the process likewise after a short drain; so does a REST server that ends by itself.
All servers listen before the models load, so that probes get a response from the start.
Separate admin and metrics servers stop last. SIGUSR1 logs the recorded batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from electra_serve.api.grpc.server import GrpcServer
from electra_serve.api.rest.server import HttpListener
from electra_serve.batching.flight_recorder import for_log
from electra_serve.runtime import memory
from electra_serve.runtime.daemon_thread import run_in_daemon_thread
from electra_serve.server.event_loop import EventLoopLag
from electra_serve.serving.manager import ModelManager
from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.registry import ModelRegistry
from electra_serve.settings.schema import LifecycleSettings

EXIT_OK: Final = 0
EXIT_FORCED: Final = 2  # requests in flight were aborted: the drain limit passed, or a second signal came
EXIT_FAULT: Final = 3  # an engine or the batcher failed for good, or a server ended by itself: start another process
SAME_SIGNAL_S: Final = 1.0  # an earlier second signal is ignored: some supervisors signal both a process and its group
# Time for the last requests to the auxiliary servers; nothing that they wait for still runs
AUXILIARY_GRACE_S: Final = 1.0
ENGINE_GRACE_S: Final = 5.0  # time for engines to end a running batch whose requests were aborted
# Time that a process with a fault still serves, so that probes see it not ready and other models finish requests
FAULT_GRACE_S: Final = 2.0
# Seconds before the end of a drain at which stalled clients are disconnected, so that they do not make it fail
STALLED_MARGIN_S: Final = 1.0
SPANS_GRACE_S: Final = 2.0  # time to export the last spans
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

OnReady = Callable[[int, int, Sequence[ModelInfo]], None]  # takes the REST port, the gRPC port and the models


class ServiceProcess:
    """Servers and models, from start to exit."""

    def __init__(
        self,
        *,
        rest: HttpListener,
        grpc: GrpcServer,
        auxiliary_servers: Sequence[HttpListener],
        registry: ModelRegistry,
        manager: ModelManager,
        settings: LifecycleSettings,
        log: structlog.typing.FilteringBoundLogger,
        event_loop_lag: EventLoopLag,
        trimmer: memory.MemoryTrimmer,
        on_ready: OnReady,
        close_tracing: Callable[[], None] | None = None,
        page_url: Callable[[int], str | None] = lambda _: None,
    ) -> None:
        self._close_tracing = close_tracing
        self._page_url = page_url
        self._rest = rest
        self._grpc = grpc
        self._auxiliary_servers = auxiliary_servers
        self._registry = registry
        self._manager = manager
        self._settings = settings
        self._log = log
        self._event_loop_lag = event_loop_lag
        self._trimmer = trimmer
        self._on_ready = on_ready
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._models_changed = asyncio.Event()
        registry.notify(self._models_changed.set)
        self._stopped_at = 0.0

    async def run(self) -> int:
        """Serves until a signal comes.

        Returns:
            The exit code: `EXIT_OK` if every accepted request got its response.

        Raises:
            StartupError: A port is taken or a model cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGUSR1, self._log_batches)
        self._event_loop_lag.start()
        rest_port = self._rest.listen()
        for server in self._auxiliary_servers:
            port = server.listen()
            self._log.info("listening", server=server.label, port=port)
        grpc_port = await self._grpc.start()
        for server in self._auxiliary_servers:
            server.serve()
        rest = self._rest.serve()
        try:
            await self._start(rest_port, grpc_port, rest)
        finally:
            drained = await self._drain()
            closed = await self._close_unless_forced()
            self._event_loop_lag.stop()
        if not self._stop.is_set():
            return EXIT_FAULT
        return EXIT_OK if drained and closed else EXIT_FORCED

    async def _start(self, rest_port: int, grpc_port: int, rest: asyncio.Task[None]) -> None:
        """Loads the models, announces them, and waits for a signal or a fault."""
        stopped = asyncio.create_task(self._stop.wait())
        watching = asyncio.create_task(self._watch_models())
        loading = asyncio.create_task(self._manager.load_all())
        ends = (stopped, watching, rest)
        try:
            await asyncio.wait((loading, *ends), return_when=asyncio.FIRST_COMPLETED)
            if not any(task.done() for task in ends):
                await loading
                self._log_ready(rest_port, grpc_port)
                await self._serve_until_one_of(ends)
            self._log_faults({"REST": rest, "model watch": watching})
        finally:
            for task in (stopped, watching, loading):
                task.cancel()
            await asyncio.gather(stopped, watching, loading, return_exceptions=True)

    async def _serve_until_one_of(self, ends: Sequence[asyncio.Task[object]]) -> None:
        trimming = asyncio.create_task(self._trimmer.run())
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            trimming.cancel()

    def _log_ready(self, rest_port: int, grpc_port: int) -> None:
        memory.freeze_startup_objects()
        self._trimmer.settle()
        self._grpc.set_serving(serving=self._registry.ready)
        page = {"playground": url} if (url := self._page_url(rest_port)) else {}
        self._log.info("ready", rest_port=rest_port, grpc_port=grpc_port, **page)
        self._on_ready(rest_port, grpc_port, self._registry.infos())

    def _log_faults(self, parts: Mapping[str, asyncio.Task[None]]) -> None:
        """Logs which parts ended by themselves, unless the cause is a model's failure, which is logged already."""
        for part, task in parts.items():
            if task.done() and not self._registry.failure:
                self._log.critical("process part ended", part=part, exc_info=_error(task))

    async def _watch_models(self) -> None:
        """Sets gRPC's health to the readiness at each change; returns when a model has failed for good."""
        while not (failure := self._registry.failure):
            self._grpc.set_serving(serving=self._registry.ready)
            await self._models_changed.wait()
            self._models_changed.clear()
        self._log.critical("process ends after model failure", failure=failure)

    async def _drain(self) -> bool:
        """Stops both servers after their last responses; returns False if requests were aborted."""
        self._log.info("draining", delay_s=self._settings.drain_delay_s, timeout_s=self._settings.drain_timeout_s)
        self._registry.drain()
        self._grpc.set_serving(serving=False)
        delay_s, grace_s = self._drain_times_s()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._force.wait(), delay_s)
        self._manager.stop()
        if self._force.is_set():
            grace_s = 0.0
        stopping = asyncio.gather(self._rest.stop(), self._grpc.stop(grace_s), return_exceptions=True)
        forced = asyncio.create_task(self._force.wait())
        stalled = asyncio.get_running_loop().call_later(
            max(grace_s - STALLED_MARGIN_S, 0.0), self._rest.disconnect_stalled
        )
        await asyncio.wait((stopping, forced), return_when=asyncio.FIRST_COMPLETED, timeout=grace_s)
        stalled.cancel()
        in_time = stopping.done()
        if not in_time:
            self._log.warning("in-flight requests aborted")
            self._rest.abort()
            await asyncio.gather(self._grpc.stop(0.0), stopping, return_exceptions=True)
        forced.cancel()
        broken = [error for error in await stopping if error is not None]
        for error in broken:
            self._log.error("server failed", exc_info=error)
        self._log.info("stopped")
        return in_time and not broken

    async def _close_unless_forced(self) -> bool:
        """Closes the rest; returns False if an engine did not close, or a second signal came first."""
        closing = asyncio.create_task(self._close())
        forced = asyncio.create_task(self._force.wait())
        await asyncio.wait((closing, forced), return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if closing.done():
            return closing.result()
        self._log.warning("close aborted")
        closing.cancel()
        await asyncio.wait((closing,))
        return False

    async def _close(self) -> bool:
        closed = await self._manager.close(ENGINE_GRACE_S)
        await asyncio.gather(*(server.stop(AUXILIARY_GRACE_S) for server in self._auxiliary_servers))
        await self._send_spans()
        return closed

    def _drain_times_s(self) -> tuple[float, float]:
        """Returns the seconds to go on as before, and then those to finish accepted requests."""
        if self._stop.is_set():
            return self._settings.drain_delay_s, self._settings.drain_timeout_s
        return (FAULT_GRACE_S, FAULT_GRACE_S) if self._registry.failure else (0.0, self._settings.drain_timeout_s)

    def _log_batches(self) -> None:
        for model, records in self._registry.records().items():
            self._log.info("flight recorder", model=model, batches=for_log(records))

    async def _send_spans(self) -> None:
        if self._close_tracing is not None:
            with contextlib.suppress(TimeoutError):  # no collector receives them
                await asyncio.wait_for(run_in_daemon_thread(self._close_tracing), SPANS_GRACE_S)

    def _signalled(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._stop.is_set():
            self._stopped_at = now
            self._stop.set()
        elif now - self._stopped_at > SAME_SIGNAL_S:
            self._force.set()


def _error(task: asyncio.Task[None]) -> BaseException | None:
    """Returns the error of a finished task."""
    return None if task.cancelled() else task.exception()
