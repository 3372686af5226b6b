"""Start, ready, SIGTERM, drain, stop: the life of the process.

    listen ─ load models ─ READY ─ (signal) ─ not ready ─ drain_delay_s ─ refuse connections,
    finish what is in flight (≤ drain_timeout_s) ─ close engines ─ stop admin and metrics ─ exit

A model whose engine will not come back ends the process likewise, but without waiting long; so does a REST server that
ends by itself, and what gRPC accepted is still answered. SIGUSR1 has the flight recorders told to the log.

All servers listen before the models are loaded, so that probes get an answer from the first second. Those for admin
and metrics, where they have ports of their own, answer until nothing is left to tell of. The signal handlers are ours.
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
EXIT_FORCED: Final = 2
"""In-flight requests were given up: the drain limit passed, or a second signal came."""
EXIT_FAULT: Final = 3
"""An engine hangs or has ended, the batcher failed, or a server ended by itself: only another process can mend it."""
SAME_SIGNAL_S: Final = 1.0
"""A second signal that comes sooner is taken for an echo of the first: some supervisors signal both a process and
its group."""
SIDE_GRACE_S: Final = 1.0
"""How long the last requests for admin and metrics have. All that they could still wait for has ended by then."""
ENGINE_GRACE_S: Final = 5.0
"""How long engines have to end the batch that they are at, once nobody waits for it any more."""
FAULT_GRACE_S: Final = 2.0
"""How long a process with a fault still answers: for probes to see that it is not ready, and for what other models
have accepted."""
STALLED_MARGIN_S: Final = 1.0
"""Seconds before the end of a drain at which clients are disconnected that have not sent their request or not read
their response: they would turn every stop into one that gave up requests."""
SPANS_GRACE_S: Final = 2.0
"""How long the last spans have to be taken by whoever collects them."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

OnReady = Callable[[int, int, Sequence[ModelInfo]], None]
"""Takes the REST port, the gRPC port, and what is served."""


class ServiceProcess:
    """The servers and the models behind them, from start to exit.

    Args:
        rest: Where REST is served.
        grpc: The gRPC server.
        auxiliary_servers: Where admin and metrics are, if they have ports of their own.
        registry: The models to load.
        manager: What is done to them at run time.
        settings: How long to drain.
        log: Where each step is told.
        event_loop_lag: Measures the lag of the event loop for as long as the process runs.
        trimmer: Gives memory back while the process serves.
        on_ready: Called once, when requests can come.
        close_tracing: Sends the remaining spans; None without tracing.
    """

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
    ) -> None:
        self._close_tracing = close_tracing
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
            The process' exit code: `EXIT_OK` when everything accepted was answered.

        Raises:
            StartupError: A port is taken or a model cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGUSR1, self._log_batches)
        self._event_loop_lag.start()
        rest_port = self._rest.listen()
        for side in self._auxiliary_servers:
            port = side.listen()
            self._log.info("listening", server=side.label, port=port)
        grpc_port = await self._grpc.start()
        for side in self._auxiliary_servers:
            side.serve()
        rest = self._rest.serve()
        try:
            await self._start(rest_port, grpc_port, rest)
        finally:
            answered = await self._drain()
            closed = await self._close_unless_forced()
            self._event_loop_lag.stop()
        if not self._stop.is_set():
            return EXIT_FAULT
        return EXIT_OK if answered and closed else EXIT_FORCED

    async def _start(self, rest_port: int, grpc_port: int, rest: asyncio.Task[None]) -> None:
        """Loads the models, tells that they are there, and waits for a signal, or for what should not end."""
        stopped = asyncio.create_task(self._stop.wait())
        tending = asyncio.create_task(self._tend())
        loading = asyncio.create_task(self._registry.load_all())
        ending = (stopped, tending, rest)
        try:
            await asyncio.wait((loading, *ending), return_when=asyncio.FIRST_COMPLETED)
            if not any(task.done() for task in ending):
                await loading
                self._log_ready(rest_port, grpc_port)
                await self._serve_until_one_of(ending)
            self._log_faults({"REST": rest, "watch over models": tending})
        finally:
            for task in (stopped, tending, loading):
                task.cancel()
            await asyncio.gather(stopped, tending, loading, return_exceptions=True)

    async def _serve_until_one_of(self, ending: Sequence[asyncio.Task[object]]) -> None:
        trimming = asyncio.create_task(self._trimmer.run())
        try:
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
        finally:
            trimming.cancel()

    def _log_ready(self, rest_port: int, grpc_port: int) -> None:
        memory.freeze_startup_objects()
        self._trimmer.settle()
        self._grpc.set_serving(serving=self._registry.ready)
        self._log.info("ready", rest_port=rest_port, grpc_port=grpc_port)
        self._on_ready(rest_port, grpc_port, self._registry.infos())

    def _log_faults(self, parts: Mapping[str, asyncio.Task[None]]) -> None:
        """Tells which parts have ended by themselves; a model's failure is told by who saw it."""
        for part, task in parts.items():
            if task.done() and not self._registry.failure:
                self._log.critical("ending, because a part of the process has ended", part=part, exc_info=_error(task))

    async def _tend(self) -> None:
        """Has gRPC's health follow readiness; returns when a model has failed for good."""
        while not (failure := self._registry.failure):
            self._grpc.set_serving(serving=self._registry.ready)
            await self._models_changed.wait()
            self._models_changed.clear()
        self._log.critical("ending, because a model has failed", failure=failure)

    async def _drain(self) -> bool:
        """Stops both servers once what they accepted is answered; False where some was given up."""
        self._log.info("draining", delay_s=self._settings.drain_delay_s, timeout_s=self._settings.drain_timeout_s)
        self._registry.retire()
        self._grpc.set_serving(serving=False)
        delay_s, grace_s = self._patience()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._force.wait(), delay_s)
        self._manager.stop()
        self._registry.reject()
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
            self._log.warning("gave up requests in flight")
            self._rest.abort()
            await asyncio.gather(self._grpc.stop(0.0), stopping, return_exceptions=True)
        forced.cancel()
        broken = [error for error in await stopping if error is not None]
        for error in broken:
            self._log.error("a server broke", exc_info=error)
        self._log.info("stopped")
        return in_time and not broken

    async def _close_unless_forced(self) -> bool:
        """Closes what is left; False where an engine could not be closed, or a second signal had it left as it is."""
        closing = asyncio.create_task(self._close())
        forced = asyncio.create_task(self._force.wait())
        await asyncio.wait((closing, forced), return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if closing.done():
            return closing.result()
        self._log.warning("gave up closing")
        closing.cancel()
        await asyncio.wait((closing,))
        return False

    async def _close(self) -> bool:
        closed = await self._registry.close(ENGINE_GRACE_S)
        await asyncio.gather(*(side.stop(SIDE_GRACE_S) for side in self._auxiliary_servers))
        await self._send_spans()
        return closed

    def _patience(self) -> tuple[float, float]:
        """Seconds to go on as before, and then to finish what was accepted."""
        if self._stop.is_set():
            return self._settings.drain_delay_s, self._settings.drain_timeout_s
        return (FAULT_GRACE_S, FAULT_GRACE_S) if self._registry.failure else (0.0, self._settings.drain_timeout_s)

    def _log_batches(self) -> None:
        for model, records in self._registry.records().items():
            self._log.info("flight recorder", model=model, batches=for_log(records))

    async def _send_spans(self) -> None:
        if self._close_tracing is not None:
            with contextlib.suppress(TimeoutError):  # nobody takes them
                await asyncio.wait_for(run_in_daemon_thread(self._close_tracing), SPANS_GRACE_S)

    def _signalled(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._stop.is_set():
            self._stopped_at = now
            self._stop.set()
        elif now - self._stopped_at > SAME_SIGNAL_S:
            self._force.set()


def _error(task: asyncio.Task[None]) -> BaseException | None:
    """What a task that is done raised."""
    return None if task.cancelled() else task.exception()
