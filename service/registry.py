"""Name → served model, and each one's way through LOADING, READY, FAILED and UNLOADING.

The registry lives on the event loop. Loading blocks for seconds, so it runs on a thread of its own, one model
after the other; what comes back is put in place on the loop. A model is READY only once its engines are warm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from service.abandonable import run_abandonable
from service.batching.batcher import Batcher
from service.engine.factory import LoadedModel
from service.errors import ModelNotFound, ModelNotReady
from service.metrics import Metrics
from service.model_info import ModelInfo, ModelLimits, ModelState
from service.presets.tokenizer import Tokenizer
from service.settings import BatchingSettings, LimitSettings, ModelSettings
from service.texts import TextLimits
from service.validation import InputLimits

ModelLoader = Callable[[ModelSettings, BatchingSettings], LoadedModel]
"""Loads and warms a model; blocks. Raises `StartupError`."""

BatcherFactory = Callable[[str, LoadedModel, BatchingSettings], Batcher]
"""Makes the batcher of a loaded model, given its name; called on the event loop."""


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A model that answers requests.

    Attributes:
        name: The name that requests use.
        loaded: Its preset, tokenizer and engines.
        batcher: Where its sequences go.
        input_limits: What one request may hold.
        text_limits: How much text one request may hold.
        load_seconds: From the start of loading to READY.
    """

    name: str
    loaded: LoadedModel
    batcher: Batcher
    input_limits: InputLimits
    text_limits: TextLimits
    load_seconds: float

    @property
    def hidden_dim(self) -> int:
        """H, the width of every output."""
        return self.loaded.preset.config.hidden_dim

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What makes ids of texts, where the preset has one."""
        return self.loaded.tokenizer


@dataclass(slots=True)
class _Slot:
    """One configured model: its settings and how far it has come."""

    settings: ModelSettings
    limits: LimitSettings
    batching: BatchingSettings
    state: ModelState = ModelState.LOADING
    served: ServedModel | None = None


class ModelRegistry:
    """The configured models.

    Args:
        models: What to serve; names differ.
        limits: For models that have none of their own.
        batching: Likewise.
        load: Loads one; runs on a thread.
        make_batcher: Puts a loaded model behind a queue.
        metrics: Where readiness and load times are shown.
        log: Where loading is told of.
    """

    def __init__(
        self,
        models: Sequence[ModelSettings],
        *,
        limits: LimitSettings,
        batching: BatchingSettings,
        load: ModelLoader,
        make_batcher: BatcherFactory,
        metrics: Metrics,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._slots = {model.name: _Slot(model, model.limits or limits, model.batching or batching) for model in models}
        self._load = load
        self._make_batcher = make_batcher
        self._metrics = metrics
        self._log = log
        self._retired = False
        for name in self._slots:
            metrics.create_model_series(name)

    @property
    def ready(self) -> bool:
        """Whether every model is READY with its engines being fed, and nobody retires."""
        return not self._retired and all(
            slot.state is ModelState.READY and slot.served is not None and slot.served.batcher.alive
            for slot in self._slots.values()
        )

    def label(self, model: str | None) -> str:
        """A configured model's name for metrics, "" for any other; None means the only one."""
        if model is None and len(self._slots) == 1:
            return next(iter(self._slots))
        return model if model is not None and model in self._slots else ""

    def ready_model(self, name: str | None) -> ServedModel:
        """The model to use for a request.

        Args:
            name: As the request has it; None where just one is served.

        Raises:
            ModelNotFound: No model has that name, or none was named where several are served.
            ModelNotReady: It is not READY.
        """
        if name is None and len(self._slots) > 1:
            raise ModelNotFound(f"several models are served: model must be one of {self._names()}", field="model")
        slot = self._slot(next(iter(self._slots)) if name is None else name)
        if slot.served is None or slot.state is not ModelState.READY:
            raise ModelNotReady(f"model {slot.settings.name} is {slot.state.value}", field="model", retry_after_s=1.0)
        return slot.served

    def info(self, name: str) -> ModelInfo:
        """What may be told of a model, whatever its state.

        Raises:
            ModelNotFound: No model has that name.
        """
        return _describe(self._slot(name))

    def infos(self) -> tuple[ModelInfo, ...]:
        """What may be told of every model, in the settings' order."""
        return tuple(_describe(slot) for slot in self._slots.values())

    async def load_all(self) -> None:
        """Loads the models one after the other.

        Raises:
            StartupError: One of them cannot be loaded; it is FAILED then, and those after it are not tried.
        """
        for slot in self._slots.values():
            try:
                await self._load_one(slot)
            except BaseException:
                slot.state = ModelState.FAILED
                raise

    @property
    def batchers(self) -> tuple[Batcher, ...]:
        """Of every model that has one, whatever its state."""
        return tuple(served.batcher for served in self._served())

    def retire(self) -> None:
        """Says not ready from now on, while requests are still answered."""
        self._retired = True

    def refuse(self) -> None:
        """Admits nothing new from now on, and answers what was admitted."""
        for served in self._served():
            served.batcher.refuse()

    async def close(self) -> None:
        """Fails what still waits and frees the engines."""
        for slot in self._slots.values():
            slot.state = ModelState.UNLOADING
            self._metrics.model_ready.labels(slot.settings.name).set(0)
        await asyncio.gather(*(served.batcher.close() for served in self._served()))

    async def _load_one(self, slot: _Slot) -> None:
        name = slot.settings.name
        self._log.info("loading model", model=name, preset=slot.settings.preset)
        started = time.perf_counter()
        loaded = await run_abandonable(lambda: self._load(slot.settings, slot.batching))
        batcher = self._make_batcher(name, loaded, slot.batching)
        batcher.start()
        config = loaded.preset.config
        slot.served = ServedModel(
            name=name,
            loaded=loaded,
            batcher=batcher,
            input_limits=InputLimits(
                vocab_size=config.vocab_size,
                num_segments=config.num_segments,
                max_sequence_length=config.max_sequence_length,
                max_sequences=slot.limits.max_sequences,
            ),
            text_limits=TextLimits(slot.limits.max_text_characters, slot.limits.max_request_characters),
            load_seconds=time.perf_counter() - started,
        )
        slot.state = ModelState.READY
        self._announce(slot.served)

    def _announce(self, served: ServedModel) -> None:
        self._metrics.model_ready.labels(served.name).set(1)
        self._metrics.model_load_seconds.labels(served.name).set(served.load_seconds)
        signature = served.loaded.engines[0].signature
        self._log.info(
            "model ready",
            model=served.name,
            weights=served.loaded.preset.weights,
            pooler=served.loaded.preset.pooler,
            parameters=served.loaded.preset.config.parameters,
            engine=signature.engine,
            device=signature.device,
            dtype=signature.dtype,
            load_seconds=round(served.load_seconds, 2),
        )
        if served.loaded.preset.weights == "random":
            self._log.warning("weights are random: outputs mean nothing", model=served.name)

    def _served(self) -> list[ServedModel]:
        return [slot.served for slot in self._slots.values() if slot.served is not None]

    def _slot(self, name: str) -> _Slot:
        slot = self._slots.get(name)
        if slot is None:
            raise ModelNotFound(f"model must be one of {self._names()}", field="model")
        return slot

    def _names(self) -> str:
        return ", ".join(self._slots)


def _describe(slot: _Slot) -> ModelInfo:
    served = slot.served
    if served is None:
        return ModelInfo(name=slot.settings.name, preset=slot.settings.preset, state=slot.state)
    preset = served.loaded.preset
    signature = served.loaded.engines[0].signature
    cost = served.batcher.cost
    return ModelInfo(
        name=slot.settings.name,
        preset=slot.settings.preset,
        state=slot.state,
        source=preset.source,
        revision=preset.revision,
        weights=preset.weights,
        config=preset.config,
        parameters=preset.config.parameters,
        limits=ModelLimits(served.input_limits.max_sequences, served.input_limits.max_sequence_length),
        engine=signature.engine,
        device=signature.device,
        dtype=signature.dtype,
        replicas=len(served.loaded.engines),
        text=served.tokenizer is not None,
        load_seconds=served.load_seconds,
        cost=(cost.batch_s, cost.position_s, cost.pair_s),
        pooler=preset.pooler,
        batch_tokens=served.batcher.batch_tokens,
    )
