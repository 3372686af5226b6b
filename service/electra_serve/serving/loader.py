"""Loads a model on a thread and starts its batcher on the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from electra_serve.batching.batcher import Batcher
from electra_serve.engine.factory import LoadedModel
from electra_serve.engine.profiling import Timings, without_outliers
from electra_serve.presets.tokenizers.loader import NoTokenizer
from electra_serve.runtime.daemon_thread import run_in_daemon_thread
from electra_serve.serving.served_model import ServedModel
from electra_serve.serving.tokenization import TextLimits
from electra_serve.serving.validation import InputLimits
from electra_serve.settings.schema import BatchingSettings, LimitSettings, ModelSettings

# Loads and warms a model; blocks. Raises `StartupError`.
ModelLoader = Callable[[ModelSettings, BatchingSettings], LoadedModel]

# Makes the batcher of a loaded model, given its name; called on the event loop
BatcherFactory = Callable[[str, LoadedModel, BatchingSettings], Batcher]


class Loading:
    """Makes served models; `limits` and `batching` are the defaults of models' own settings."""

    def __init__(
        self,
        *,
        limits: LimitSettings,
        batching: BatchingSettings,
        load: ModelLoader,
        make_batcher: BatcherFactory,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._limits = limits
        self._batching = batching
        self._load = load
        self._make_batcher = make_batcher
        self._log = log

    def limits_of(self, settings: ModelSettings) -> LimitSettings:
        """Returns the limits of one request to the model."""
        return settings.limits_over(self._limits)

    def batching_of(self, settings: ModelSettings) -> BatchingSettings:
        """Returns the batching settings of the model."""
        return settings.batching_over(self._batching)

    async def load(self, settings: ModelSettings, *, instead_of: ServedModel | None = None) -> ServedModel:
        """Loads one model and starts its batcher.

        Nothing is awaited after the load, so the model can be published in the same event-loop iteration.

        Raises:
            StartupError: The model cannot be loaded.
        """
        self._log.info("loading model", model=settings.name, preset=settings.preset)
        started = time.perf_counter()
        batching, limits = self.batching_of(settings), self.limits_of(settings)
        loaded = await run_in_daemon_thread(lambda: self._load(settings, batching))
        if instead_of is not None:
            loaded = with_quiet_timings(loaded, settings, instead_of)
        batcher = self._make_batcher(settings.name, loaded, batching)
        batcher.start()
        config = loaded.preset.config
        return ServedModel(
            settings=settings,
            loaded=loaded,
            batcher=batcher,
            input_limits=InputLimits(
                vocab_size=config.vocab_size,
                num_segments=config.num_segments,
                max_sequence_length=config.max_sequence_length,
                max_sequences=limits.max_sequences,
            ),
            text_limits=TextLimits(limits.max_text_characters, limits.max_request_characters),
            max_timeout_s=limits.max_timeout_s,
            load_seconds=time.perf_counter() - started,
        )

    def announce(self, served: ServedModel) -> None:
        """Logs that a model is ready."""
        signature = served.loaded.engines[0].signature
        self._log.info(
            "model ready",
            model=served.name,
            weights=served.loaded.preset.weights,
            pooler=served.loaded.preset.pooler,
            head=served.loaded.preset.head_name,
            parameters=served.loaded.preset.parameters,
            engine=signature.engine,
            device=signature.device,
            dtype=signature.dtype,
            load_seconds=round(served.load_seconds, 2),
        )
        if served.loaded.preset.weights == "random":
            self._log.warning("random weights served", model=served.name)
        if isinstance(served.tokenizer, NoTokenizer):
            self._log.warning("model rejects text", model=served.name, reason=served.tokenizer.reason)


def with_quiet_timings(loaded: LoadedModel, settings: ModelSettings, before: ServedModel) -> LoadedModel:
    """Returns `loaded` with the timings of the model that it replaces, if both compute alike.

    Timings taken while the other model serves are too long, and would make batches too small.
    """

    def kind(model: LoadedModel, settings: ModelSettings) -> tuple[object, ...]:
        signatures = tuple(engine.signature for engine in model.all_engines)
        return model.preset.config, model.preset.head, settings.threads, len(model.engines), signatures

    same = kind(loaded, settings) == kind(before.loaded, before.settings)
    if not same:
        return loaded
    quiet = before.loaded
    return replace(
        loaded,
        timings=_quietest(quiet.timings, loaded.timings),
        lone_timings=_quietest(quiet.lone_timings, loaded.lone_timings),
    )


def _quietest(quiet: Timings, noisy: Timings) -> Timings:
    """Adds timings that only `noisy` has: a longer `target_batch_s` times more shapes."""
    return quiet if noisy.keys() <= quiet.keys() else without_outliers({**noisy, **quiet})
