"""Starts, loads, reloads, unloads and closes models while requests are served.

    load      LOADING ─ READY or FAILED
    reload    READY ─ the new model is loaded, warmed and checked ─ swap ─ the previous one is closed
    unload    UNLOADING ─ closed ─ removed

Each operation is a task that survives its client's disconnect and ends with the process; a model has one at a time.
Loads run one at a time, the closing of the replaced model included: memory holds at most one model more
than are served. A failed load changes nothing that is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from electra_serve.batching.flight_recorder import BatchRecord
from electra_serve.errors import (
    Conflict,
    InvalidInput,
    ModelLoadFailed,
    ModelNotReady,
    ServiceError,
    ShuttingDown,
    StartupError,
)
from electra_serve.observability.metrics import Metrics
from electra_serve.presets.texts import escape_surrogates
from electra_serve.serving.entry import ModelEntry
from electra_serve.serving.loader import Loading
from electra_serve.serving.model_info import Change, ModelState, ModelStatus
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.served_model import ServedModel
from electra_serve.settings.schema import ModelSettings, check_admissible

MAX_REASON_CHARACTERS: Final = 500


class Operation:
    """Operation in progress; its task returns the failure, or None."""

    def __init__(self, task: asyncio.Task[ServiceError | None]) -> None:
        self._task = task

    async def finished(self, within_s: float) -> bool:
        """Waits for its end, at most `within_s` seconds; returns False if it still runs.

        Raises:
            ModelLoadFailed: It failed.
            ShuttingDown: The process ended it.
        """
        await asyncio.wait({self._task}, timeout=within_s)
        if not self._task.done():
            return False
        if self._task.cancelled():
            raise ShuttingDown("the service is shutting down; the operation was canceled")
        failure = self._task.result()
        if failure is not None:
            raise failure
        return True


class ModelManager:
    """Life cycle of the models of a registry. Event loop only."""

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        loading: Loading,
        metrics: Metrics,
        max_sequences: int,
        collect_and_trim: Callable[[], None],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._registry = registry
        self._loading = loading
        self._metrics = metrics
        self._max_sequences = max_sequences
        self._collect_and_trim = collect_and_trim
        self._log = log
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[ServiceError | None]] = set()
        self._stopped = False
        for entry in registry.entries():
            metrics.create_model_series(entry.settings.name)

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Describes every model to administrators."""
        return tuple(entry.status() for entry in self._registry.entries())

    def status(self, name: str) -> ModelStatus:
        """Describes one model to administrators; raises `ModelNotFound`."""
        return self._registry.entry(name).status()

    def batches(self) -> dict[str, tuple[BatchRecord, ...]]:
        """Returns the recorded batches of each READY model, by name."""
        return self._registry.records()

    def settings(self, name: str) -> ModelSettings:
        """Returns the settings of a model; raises `ModelNotFound`."""
        return self._registry.entry(name).settings

    async def load_all(self) -> None:
        """Loads the configured models in order; raises the `StartupError` of the first that FAILED."""
        for entry in self._registry.entries():
            await self._publish(entry, entry.settings)
        self._registry.finish_start()

    def load(self, settings: ModelSettings) -> Operation:
        """Starts to load a model under a free name, or under that of a FAILED one.

        Raises:
            Conflict: The name or an alias is taken.
            InvalidInput: The limits exceed those of this process.
            ModelNotReady, ShuttingDown: The process is starting or stopping.
        """
        self._check_open()
        self._check_limits(settings)
        entry = self._registry.add(settings)
        self._metrics.create_model_series(settings.name)
        return self._begin(entry, Change.LOAD, settings)

    def reload(self, settings: ModelSettings) -> Operation:
        """Starts to load a model that will replace the one of the same name.

        Raises as `load`, and `ModelNotFound`; `Conflict` also if another operation is in progress.
        """
        self._check_open()
        entry = self._idle_entry(settings.name)
        self._check_limits(settings)
        self._registry.claim(entry, settings)
        if entry.served is None:
            entry.state = ModelState.LOADING
        return self._begin(entry, Change.RELOAD, settings)

    def unload(self, name: str) -> Operation:
        """Starts to remove a model: UNLOADING at once, closed after the response to its last request.

        Raises as `reload`; `Conflict` also if no other model is READY.
        """
        self._check_open()
        entry = self._idle_entry(name)
        if entry.served is not None:
            if all(served is entry.served for served in self._registry.ready_models()):
                raise Conflict(f"cannot unload model {name}: it is the only one that is ready; load another one first")
            self._registry.withdraw(entry)
        return self._begin(entry, Change.UNLOAD, entry.settings)

    def stop(self) -> None:
        """Cancels operations in progress, and rejects new ones and new requests; accepted requests are served."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        for batcher in self._registry.batchers:
            batcher.reject()

    async def close(self, within_s: float | None = None) -> bool:
        """Fails queued requests, waits `within_s` for running batches, and returns True if every engine was closed."""
        batchers = self._registry.batchers
        self._registry.closing.clear()
        for entry in self._registry.entries():
            self._registry.withdraw(entry)
            self._metrics.model_ready.labels(entry.settings.name).set(0)
        return all(await asyncio.gather(*(batcher.close(within_s) for batcher in batchers)))

    def _check_open(self) -> None:
        if self._stopped:
            raise ShuttingDown("the service is shutting down; models cannot be changed")
        if not self._registry.started:
            raise ModelNotReady("the configured models are still loading")

    def _check_limits(self, settings: ModelSettings) -> None:
        limits = self._loading.limits_of(settings)
        try:
            check_admissible(limits, self._loading.batching_of(settings))
        except ValueError as error:
            raise InvalidInput(str(error), field="limits") from error
        if limits.max_sequences > self._max_sequences:
            raise InvalidInput(
                f"limits.max_sequences must be at most {self._max_sequences}, the largest when the process started; "
                f"got {limits.max_sequences}",
                field="limits",
            )

    def _idle_entry(self, name: str) -> ModelEntry:
        entry = self._registry.entry(name)
        if entry.change is not None:
            raise Conflict(f"model {name} has another change in progress: {entry.change.value}")
        return entry

    def _begin(self, entry: ModelEntry, change: Change, settings: ModelSettings) -> Operation:
        entry.change = change
        work = partial(self._unload, entry) if change is Change.UNLOAD else partial(self._load, entry, settings)
        task = asyncio.create_task(self._run(entry, change, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Operation(task)

    async def _run(self, entry: ModelEntry, change: Change, work: Callable[[], Awaitable[None]]) -> ServiceError | None:
        name, reason = entry.settings.name, ""
        try:
            await work()
        except StartupError:
            reason = entry.reason
        except Exception as error:  # noqa: BLE001  # backends raise anything; the process and its models go on
            reason = entry.reason = f"{type(error).__name__}: {one_line(error)}"
            self._log.exception("model change failed unexpectedly", model=name, change=change.value)
        finally:
            entry.change, entry.claimed = None, ()
        self._collect_and_trim()
        if not reason:
            self._log.info("model changed", model=name, change=change.value)
            return None
        self._log.error("model not changed", model=name, change=change.value, reason=reason)
        return ModelLoadFailed(reason)

    async def _load(self, entry: ModelEntry, settings: ModelSettings) -> None:
        async with self._turn:
            previous = await self._publish(entry, settings)
            if previous is not None:
                await self._close_when_idle(previous)

    async def _unload(self, entry: ModelEntry) -> None:
        if entry.served is not None:
            await self._close_when_idle(entry.served)
        name = entry.settings.name
        self._registry.remove(name)
        self._metrics.remove_model_series(name)

    async def _publish(self, entry: ModelEntry, settings: ModelSettings) -> ServedModel | None:
        """Loads a model and makes it READY; returns the one that it replaces."""
        name = settings.name
        try:
            served = await self._loading.load(settings, instead_of=entry.served)
        except Exception as error:
            self._metrics.model_loads.labels(name, "failed").inc()
            entry.fail(one_line(error))
            raise
        served.batcher.notify(self._registry.changed)
        previous = self._registry.publish(entry, served)
        self._metrics.model_loads.labels(name, "ok").inc()
        self._metrics.model_ready.labels(name).set(1)
        self._metrics.model_load_seconds.labels(name).set(served.load_seconds)
        self._loading.announce(served)
        return previous

    async def _close_when_idle(self, served: ServedModel) -> None:
        """Closes a model that no new request can find, after its last request."""
        closing = self._registry.closing
        closing.add(served)
        await served.requests.wait_idle()
        if served in closing:  # else `close` closes it
            await served.batcher.close()
            closing.discard(served)  # only now: if this task is canceled, `close` closes it


def one_line(error: Exception) -> str:
    r"""Shortens an error to one line that UTF-8 can encode.

    Example:
        >>> one_line(ValueError("first\nsecond"))
        'first second'
        >>> one_line(MemoryError())
        'MemoryError'
    """
    return escape_surrogates(" ".join(str(error).split())[:MAX_REASON_CHARACTERS]) or type(error).__name__
