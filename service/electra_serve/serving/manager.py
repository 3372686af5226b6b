"""Loads, reloads and unloads models while requests are answered.

    load      LOADING ─ READY or FAILED
    reload    READY ─ another one is loaded, warmed and checked beside it ─ swap ─ the one before is closed
    unload    UNLOADING ─ closed ─ gone

A change is a task of its own: it goes on when whoever asked for it has left, and ends with the process. A model that is
being changed takes no other change. Loads are one after the other, the closing of what was replaced included: so there
is never more in memory than what is served and one model more.

A load that fails changes nothing of what is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

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
from electra_serve.serving.entry import ModelEntry
from electra_serve.serving.loader import Loading
from electra_serve.serving.model_info import Change, ModelState, ModelStatus
from electra_serve.serving.registry import ModelRegistry, one_line
from electra_serve.settings.schema import ModelSettings, check_admissible


class Operation:
    """A change that has begun.

    Args:
        task: Ends with what went wrong, or None.
    """

    def __init__(self, task: asyncio.Task[ServiceError | None]) -> None:
        self._task = task

    async def finished(self, within_s: float) -> bool:
        """Waits for its end, for so many seconds. The change does not care whether anybody waits.

        Returns:
            Whether it has come to its end.

        Raises:
            ModelLoadFailed: It has come to nothing.
            ShuttingDown: The process ends first.
        """
        await asyncio.wait({self._task}, timeout=within_s)
        if not self._task.done():
            return False
        if self._task.cancelled():
            raise ShuttingDown("the service is shutting down: the change was given up")
        failure = self._task.result()
        if failure is not None:
            raise failure
        return True


class ModelManager:
    """What can be done to models at run time. On the event loop only.

    Args:
        registry: The models.
        loading: What they are loaded with: says whose limits hold.
        max_sequences: Most sequences of one request that the transports take.
        collect_and_trim: Gives memory back when a model has gone.
        log: Where each change is told.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        loading: Loading,
        max_sequences: int,
        collect_and_trim: Callable[[], None],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._registry = registry
        self._loading = loading
        self._max_sequences = max_sequences
        self._collect_and_trim = collect_and_trim
        self._log = log
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[ServiceError | None]] = set()
        self._stopped = False

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Every model."""
        return tuple(entry.status() for entry in self._registry.slots())

    def status(self, name: str) -> ModelStatus:
        """One model; raises `ModelNotFound`."""
        return self._registry.entry(name).status()

    def batches(self) -> dict[str, tuple[BatchRecord, ...]]:
        """What became of the last batches of every model that answers, by its name."""
        return self._registry.records()

    def settings(self, name: str) -> ModelSettings:
        """What a model is loaded by; raises `ModelNotFound`."""
        return self._registry.entry(name).settings

    def load(self, settings: ModelSettings) -> Operation:
        """Begins to load a model under a name that is free, or that of one which could not be loaded.

        Raises:
            Conflict: The name or an alias is taken.
            InvalidInput: Its limits do not fit this process.
            ModelNotReady: The process is still starting.
            ShuttingDown: It is ending.
        """
        self._check_open()
        self._check_limits(settings)
        return self._begin(self._registry.add(settings), Change.LOAD, settings)

    def reload(self, settings: ModelSettings) -> Operation:
        """Begins to load a model anew, in the place of the one of its name.

        Raises:
            ModelNotFound: There is none.
            Conflict: Another change to it is under way, or an alias is taken.
            InvalidInput: Its limits do not fit this process.
            ModelNotReady: The process is still starting.
            ShuttingDown: It is ending.
        """
        self._check_open()
        entry = self._free(settings.name)
        self._check_limits(settings)
        self._registry.claim(entry, settings)
        if entry.served is None:
            entry.state = ModelState.LOADING
        return self._begin(entry, Change.RELOAD, settings)

    def unload(self, name: str) -> Operation:
        """Begins to take a model out of service.

        It is not READY from now on, and gone when the last request to it is answered.

        Raises:
            ModelNotFound: There is none of that name.
            Conflict: Another change to it is under way, or no other model is READY.
            ModelNotReady: The process is still starting.
            ShuttingDown: It is ending.
        """
        self._check_open()
        entry = self._free(name)
        if entry.served is not None:
            if all(served is entry.served for served in self._registry.ready_models()):
                raise Conflict(f"model {name} is the only one that is ready: load another first, or reload this one")
            self._registry.withdraw(entry)
        return self._begin(entry, Change.UNLOAD, entry.settings)

    def stop(self) -> None:
        """Takes no changes any more, and gives up those under way."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()

    def _check_open(self) -> None:
        if self._stopped:
            raise ShuttingDown("the service is shutting down and changes no models")
        if not self._registry.started:
            raise ModelNotReady("the models of the settings are still loading")

    def _check_limits(self, settings: ModelSettings) -> None:
        limits = self._loading.limits_of(settings)
        try:
            check_admissible(limits, self._loading.batching_of(settings))
        except ValueError as error:
            raise InvalidInput(str(error), field="limits") from error
        if limits.max_sequences > self._max_sequences:
            raise InvalidInput(
                f"limits.max_sequences must be at most {self._max_sequences}, which is what any model took when the "
                f"process started; received {limits.max_sequences}",
                field="limits",
            )

    def _free(self, name: str) -> ModelEntry:
        entry = self._registry.entry(name)
        if entry.change is not None:
            raise Conflict(f"model {name} has another change under way: {entry.change.value}")
        return entry

    def _begin(self, entry: ModelEntry, change: Change, settings: ModelSettings) -> Operation:
        entry.change = change
        work = partial(self._unload, entry) if change is Change.UNLOAD else partial(self._load, entry, settings)
        task = asyncio.create_task(self._outcome(entry, change, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Operation(task)

    async def _outcome(
        self, entry: ModelEntry, change: Change, work: Callable[[], Awaitable[None]]
    ) -> ServiceError | None:
        name, reason = entry.settings.name, ""
        try:
            await work()
        except StartupError:
            reason = entry.reason
        except Exception as error:  # noqa: BLE001  # whatever a backend raises, the process and its models go on
            reason = entry.reason = f"{type(error).__name__}: {one_line(error)}"
            self._log.exception("a change of models failed unexpectedly", model=name, change=change.value)
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
            before = await self._registry.put(entry, settings)
            if before is not None:
                await self._registry.dismiss(before)

    async def _unload(self, entry: ModelEntry) -> None:
        if entry.served is not None:
            await self._registry.dismiss(entry.served)
        self._registry.remove(entry.settings.name)
