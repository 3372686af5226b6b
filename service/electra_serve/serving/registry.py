"""Entries of all models: names, aliases, states and readiness.

    LOADING ─┬─ READY ─── UNLOADING ─ removed
             └─ FAILED ─ removed

The registry loads and closes nothing; `electra_serve.serving.manager` does, and records the result here.
A reloaded model stays READY: each request keeps the model that it found. Event loop only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from electra_serve.batching.batcher import Batcher
from electra_serve.batching.flight_recorder import BatchRecord
from electra_serve.errors import Conflict, ModelNotFound, ModelNotReady
from electra_serve.serving.entry import ModelEntry
from electra_serve.serving.model_info import ModelInfo, ModelState
from electra_serve.serving.served_model import ServedModel
from electra_serve.settings.schema import ModelSettings

LOADING_RETRY_AFTER_S = 1.0


class ModelRegistry:
    """Models by name and alias.

    Attributes:
        started: True once every configured model has been loaded.
        closing: Replaced or unloaded models whose engines are still open.
    """

    def __init__(self, models: Sequence[ModelSettings]) -> None:
        self._entries = {model.name: ModelEntry(model) for model in models}
        self._aliases: dict[str, ModelEntry] = {}
        self._index_aliases()
        self._only = models[0].name if len(models) == 1 else None
        self._draining = False
        self._notify: Callable[[], None] = lambda: None
        self.started = False
        self.closing: set[ServedModel] = set()

    @property
    def ready(self) -> bool:
        """True if the configured models were loaded, no engine is stalled and the process is not draining."""
        return self.started and not self._draining and all(served.batcher.alive for served in self.ready_models())

    @property
    def failure(self) -> str:
        """Name and reason of a model that only another process can serve; empty if none failed."""
        failed = ((served.name, served.batcher.failure) for served in self.open_models())
        return next((f"{name}: {failure}" for name, failure in failed if failure), "")

    def notify(self, when_changed: Callable[[], None]) -> None:
        """Has `when_changed` called whenever `ready` or `failure` may have changed."""
        self._notify = when_changed

    def changed(self) -> None:
        """Reports that `ready` or `failure` may have changed."""
        self._notify()

    def finish_start(self) -> None:
        """Records that every configured model has been loaded."""
        self.started = True
        self._notify()

    def drain(self) -> None:
        """Reports not ready from now on; requests are still served."""
        self._draining = True
        self._notify()

    def records(self) -> dict[str, tuple[BatchRecord, ...]]:
        """Returns the recorded batches of each READY model, by name."""
        return {served.name: served.batcher.records() for served in self.ready_models()}

    def label(self, model: str | None) -> str:
        """Returns the `model` label for metrics: a configured name, or "" for an unknown one."""
        name = self._implied() if model is None else model
        entry = None if name is None else self._find(name)
        return "" if entry is None else entry.settings.name

    def ready_model(self, name: str | None) -> ServedModel:
        """Finds the model for a request, which must enter its `requests` before it awaits anything.

        Raises:
            ModelNotFound: The name or alias is unknown, or None although several models are served.
            ModelNotReady: The model is not READY.
        """
        if name is None:
            name = self._implied()
            if name is None:
                raise ModelNotFound(f"several models are served: model must be one of {self._names()}", field="model")
        entry = self.entry(name)
        if entry.ready_model is None:
            raise ModelNotReady(
                f"model {entry.settings.name} is {entry.state.value}",
                field="model",
                retry_after_s=LOADING_RETRY_AFTER_S,
            )
        return entry.ready_model

    def ready_models(self) -> Iterator[ServedModel]:
        """Yields every READY model."""
        return (entry.ready_model for entry in self._entries.values() if entry.ready_model is not None)

    def open_models(self) -> list[ServedModel]:
        """Lists every model with open engines once, whatever its state."""
        placed = (entry.served for entry in self._entries.values())
        return [served for served in dict.fromkeys((*placed, *self.closing)) if served is not None]

    @property
    def batchers(self) -> tuple[Batcher, ...]:
        """Batchers of `open_models`."""
        return tuple(served.batcher for served in self.open_models())

    def info(self, name: str) -> ModelInfo:
        """Describes one model; raises `ModelNotFound`."""
        return self.entry(name).info()

    def infos(self) -> tuple[ModelInfo, ...]:
        """Describes every model: those of the settings in their order, then those loaded later."""
        return tuple(entry.info() for entry in self._entries.values())

    def entry(self, name: str) -> ModelEntry:
        """Finds the entry of a name or an alias; raises `ModelNotFound`."""
        entry = self._find(name)
        if entry is None:
            raise ModelNotFound(f"model must be one of {self._names()}", field="model")
        return entry

    def entries(self) -> tuple[ModelEntry, ...]:
        """Lists every entry."""
        return tuple(self._entries.values())

    def add(self, settings: ModelSettings) -> ModelEntry:
        """Adds an entry in state LOADING, or replaces a FAILED one; raises `Conflict` if a name is taken."""
        present = self._entries.get(settings.name)
        if present is not None and (present.state is not ModelState.FAILED or present.change is not None):
            raise Conflict(
                f"cannot load model {settings.name}: it is {present.state.value}; reload it or choose another name"
            )
        self._check_free(settings)
        entry = self._entries[settings.name] = ModelEntry(settings)
        self._index_aliases()
        return entry

    def claim(self, entry: ModelEntry, settings: ModelSettings) -> None:
        """Reserves the names of a reload until it ends; raises `Conflict` if one is taken."""
        self._check_free(settings)
        entry.claimed = settings.names

    def publish(self, entry: ModelEntry, served: ServedModel) -> ServedModel | None:
        """Makes a loaded model READY under the names of its settings; returns the model that it replaces."""
        previous = entry.publish(served)
        self._index_aliases()
        self._notify()
        return previous

    def withdraw(self, entry: ModelEntry) -> None:
        """Hides a model from new requests: it is UNLOADING."""
        entry.state = ModelState.UNLOADING
        self._notify()

    def remove(self, name: str) -> None:
        """Removes an entry; its names become free."""
        del self._entries[name]
        self._index_aliases()

    def _find(self, name: str) -> ModelEntry | None:
        return self._entries.get(name) or self._aliases.get(name)

    def _index_aliases(self) -> None:
        self._aliases = {alias: entry for entry in self._entries.values() for alias in entry.settings.aliases}

    def _check_free(self, settings: ModelSettings) -> None:
        for name, entry in self._entries.items():
            taken = {*entry.settings.names, *entry.claimed} if name != settings.name else set()
            for wanted in settings.names:
                if wanted in taken:
                    raise Conflict(f"{wanted} must be free; it is a name or an alias of model {name}")

    def _implied(self) -> str | None:
        """Returns the model of requests that name none: the one configured alone, or the only one left."""
        if self._only in self._entries:
            return self._only
        return next(iter(self._entries)) if len(self._entries) == 1 else None

    def _names(self) -> str:
        return ", ".join(self._entries)
