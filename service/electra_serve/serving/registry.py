"""Name → served model, and each one's way through LOADING, READY, FAILED and UNLOADING.

    LOADING ─┬─ READY ─── UNLOADING ─ gone
             └─ FAILED ─ gone

The registry lives on the event loop. Loading blocks for seconds, so it runs on a thread of its own; what comes back is
put in place on the loop. A model is READY only once its engines are warm. A reload puts another model in the place
of one that is READY all the while: a request has the one it found, whole, and the one that was replaced
is closed when its last request is answered.

At start all models must load. What is done at run time is the business of `electra_serve.serving.manager`; it changes
nothing of whether the process is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from electra_serve.batching.batcher import Batcher
from electra_serve.batching.flight_recorder import BatchRecord
from electra_serve.errors import Conflict, ModelNotFound, ModelNotReady
from electra_serve.observability.metrics import Metrics
from electra_serve.serving.entry import ModelEntry
from electra_serve.serving.loader import Loading
from electra_serve.serving.model_info import ModelInfo, ModelState
from electra_serve.serving.served_model import ServedModel
from electra_serve.settings.schema import ModelSettings

MAX_REASON_CHARACTERS: Final = 500


class ModelRegistry:
    """The models there are.

    Args:
        models: What to serve from the start; names differ.
        loading: Makes models that answer.
        metrics: Where readiness and load times are shown.
    """

    def __init__(self, models: Sequence[ModelSettings], *, loading: Loading, metrics: Metrics) -> None:
        self._entries = {model.name: ModelEntry(model) for model in models}
        self._aliases: dict[str, ModelEntry] = {}
        self._index_aliases()
        self._only = models[0].name if len(models) == 1 else None
        self._loading = loading
        self._metrics = metrics
        self._leaving: set[ServedModel] = set()
        self._retired = False
        self._notify: Callable[[], None] = lambda: None
        self.started = False
        for name in self._entries:
            metrics.create_model_series(name)

    @property
    def ready(self) -> bool:
        """Whether what was configured has been loaded, all that is READY has its engines fed, and nobody retires."""
        return self.started and not self._retired and all(served.batcher.alive for served in self.ready_models())

    @property
    def failure(self) -> str:
        """Which model will not come back, and why; empty while none has failed."""
        failed = ((served.name, served.batcher.failure) for served in self._open())
        return next((f"{name}: {failure}" for name, failure in failed if failure), "")

    def notify(self, when_changed: Callable[[], None]) -> None:
        """Has `when_changed` called on the event loop whenever `ready` or `failure` may have changed."""
        self._notify = when_changed

    def records(self) -> dict[str, tuple[BatchRecord, ...]]:
        """What became of the last batches of every model that answers, by its name."""
        return {served.name: served.batcher.records() for served in self.ready_models()}

    def label(self, model: str | None) -> str:
        """A model's own name for metrics, "" for any other; None means the one that need not be named."""
        name = self._implied() if model is None else model
        entry = None if name is None else self._find(name)
        return "" if entry is None else entry.settings.name

    def ready_model(self, name: str | None) -> ServedModel:
        """The model to use for a request, which is to enter its `requests` at once.

        Args:
            name: As the request has it; None for the one that was configured alone, or is alone by now.

        Raises:
            ModelNotFound: No model has that name, or none was named where several are served.
            ModelNotReady: It is not READY.
        """
        if name is None:
            name = self._implied()
            if name is None:
                raise ModelNotFound(f"several models are served: model must be one of {self._names()}", field="model")
        entry = self.entry(name)
        if entry.ready_model is None:
            raise ModelNotReady(f"model {entry.settings.name} is {entry.state.value}", field="model", retry_after_s=1.0)
        return entry.ready_model

    def ready_models(self) -> Iterator[ServedModel]:
        """Every model that answers requests."""
        return (entry.ready_model for entry in self._entries.values() if entry.ready_model is not None)

    def info(self, name: str) -> ModelInfo:
        """What may be told of a model, whatever its state.

        Raises:
            ModelNotFound: No model has that name.
        """
        return self.entry(name).info()

    def infos(self) -> tuple[ModelInfo, ...]:
        """What may be told of every model: those of the settings in their order, then those that came later."""
        return tuple(entry.info() for entry in self._entries.values())

    def entry(self, name: str) -> ModelEntry:
        """What stands under a name or an alias.

        Raises:
            ModelNotFound: Nothing does.
        """
        entry = self._find(name)
        if entry is None:
            raise ModelNotFound(f"model must be one of {self._names()}", field="model")
        return entry

    def slots(self) -> tuple[ModelEntry, ...]:
        """What stands under every name."""
        return tuple(self._entries.values())

    def add(self, settings: ModelSettings) -> ModelEntry:
        """Takes a name for a model that is to be loaded.

        Raises:
            Conflict: It is taken, by another than a model that could not be loaded, or one of its aliases is.
        """
        there = self._entries.get(settings.name)
        if there is not None and (there.state is not ModelState.FAILED or there.change is not None):
            raise Conflict(f"model {settings.name} is {there.state.value}: reload it, or take another name")
        self._check_free(settings)
        self._metrics.create_model_series(settings.name)
        entry = self._entries[settings.name] = ModelEntry(settings)
        self._index_aliases()
        return entry

    def claim(self, entry: ModelEntry, settings: ModelSettings) -> None:
        """Keeps the names that a reload will bring from other models, until the change is over.

        Raises:
            Conflict: One is taken.
        """
        self._check_free(settings)
        entry.claimed = settings.names

    async def put(self, entry: ModelEntry, settings: ModelSettings) -> ServedModel | None:
        """Loads a model and puts it in place, READY.

        Returns:
            What answered under that name until now, to be dismissed.

        Raises:
            Exception: It cannot be loaded. What was there before still answers; where nothing did, it is FAILED.
        """
        try:
            served = await self._loading.load(settings, instead_of=entry.served)
        except Exception as error:
            self._metrics.model_loads.labels(settings.name, "failed").inc()
            entry.reason = one_line(error)
            if entry.served is None:
                entry.state = ModelState.FAILED
            raise
        before, entry.served = entry.served, served
        entry.settings, entry.state, entry.reason = settings, ModelState.READY, ""
        self._index_aliases()
        served.batcher.notify(lambda: self._notify())
        self._notify()
        self._metrics.model_loads.labels(settings.name, "ok").inc()
        self._metrics.model_ready.labels(settings.name).set(1)
        self._metrics.model_load_seconds.labels(settings.name).set(served.load_seconds)
        self._loading.announce(served)
        return before

    def withdraw(self, entry: ModelEntry) -> None:
        """Makes a model unavailable to new requests: it is UNLOADING."""
        entry.state = ModelState.UNLOADING
        self._notify()

    async def dismiss(self, served: ServedModel) -> None:
        """Closes a model that can no longer be found, when its last request is answered."""
        self._leaving.add(served)
        await served.requests.gone()
        if served in self._leaving:  # else the process is ending, and closes it
            await served.batcher.close()
            self._leaving.discard(served)  # not before: where this is cancelled, the process closes it

    def remove(self, name: str) -> None:
        """Gives a name back."""
        del self._entries[name]
        self._index_aliases()
        self._metrics.remove_model_series(name)

    async def load_all(self) -> None:
        """Loads the models one after the other.

        Raises:
            StartupError: One of them cannot be loaded; it is FAILED then, and those after it are not tried.
        """
        for entry in self.slots():
            await self.put(entry, entry.settings)
        self.started = True
        self._notify()

    @property
    def batchers(self) -> tuple[Batcher, ...]:
        """Of every model that has one, whatever its state."""
        return tuple(served.batcher for served in self._open())

    def retire(self) -> None:
        """Says not ready from now on, while requests are still answered."""
        self._retired = True
        self._notify()

    def reject(self) -> None:
        """Admits nothing new from now on, and answers what was admitted."""
        for served in self._open():
            served.batcher.reject()

    async def close(self, within_s: float | None = None) -> bool:
        """Fails what still waits and frees the engines.

        Args:
            within_s: Seconds that they have to end what they are at. None: as long as it takes.

        Returns:
            Whether they have.
        """
        closing = self._open()
        self._leaving.clear()
        for entry in self._entries.values():
            entry.state = ModelState.UNLOADING
            self._metrics.model_ready.labels(entry.settings.name).set(0)
        return all(await asyncio.gather(*(served.batcher.close(within_s) for served in closing)))

    def _open(self) -> list[ServedModel]:
        """Each once: one that is being unloaded is still in its slot, and leaving."""
        placed = (entry.served for entry in self._entries.values())
        return [served for served in dict.fromkeys((*placed, *self._leaving)) if served is not None]

    def _find(self, name: str) -> ModelEntry | None:
        return self._entries.get(name) or self._aliases.get(name)

    def _index_aliases(self) -> None:
        self._aliases = {alias: entry for entry in self._entries.values() for alias in entry.settings.aliases}

    def _check_free(self, settings: ModelSettings) -> None:
        """Rejects names that another model has, or will have."""
        for name, entry in self._entries.items():
            taken = {*entry.settings.names, *entry.claimed} if name != settings.name else set()
            for wanted in settings.names:
                if wanted in taken:
                    raise Conflict(f"{wanted} must be free; it is a name or an alias of model {name}")

    def _implied(self) -> str | None:
        """The model that a request means which names none."""
        if self._only in self._entries:
            return self._only
        return next(iter(self._entries)) if len(self._entries) == 1 else None

    def _names(self) -> str:
        return ", ".join(self._entries)


def one_line(error: Exception) -> str:
    r"""What went wrong, for a person.

    Example:
        >>> one_line(ValueError("first\nsecond"))
        'first second'
        >>> one_line(MemoryError())
        'MemoryError'
    """
    return " ".join(str(error).split())[:MAX_REASON_CHARACTERS] or type(error).__name__
