"""Loads a model by its settings: preset, tokenizer and warm engines.

A backend is imported only if its engine is selected, since its import takes seconds and hundreds of megabytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from electra_serve.engine.base import Engine, EngineSet
from electra_serve.engine.golden import check_golden, check_logits
from electra_serve.engine.keras.backend import use_keras_on
from electra_serve.engine.profiling import Timings, calibrate
from electra_serve.engine.selection import choose_dtype, choose_engine
from electra_serve.engine.shapes import ShapeLimits
from electra_serve.errors import PresetError
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.sources import PresetSource, resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer, load_tokenizer
from electra_serve.runtime.progress import NO_PROGRESS, Progress
from electra_serve.settings.schema import BatchingSettings, ModelSettings


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model that is ready to be served."""

    preset: PresetFolder
    tokenizer: Tokenizer | NoTokenizer
    engines: tuple[Engine, ...]  # share the queue; warm, at least one
    timings: Timings  # on one of `engines`
    lone: Engine | None = None  # runs single batches on all cores, if there is one
    lone_timings: Timings = field(default_factory=dict)

    @property
    def all_engines(self) -> tuple[Engine, ...]:
        """All engines."""
        return EngineSet(self.engines, self.lone).all()


class EngineBuilder(Protocol):
    """Builds the engines of one model on one backend."""

    def __call__(self, preset: PresetFolder, settings: ModelSettings, limits: ShapeLimits) -> EngineSet:
        """Builds engines, not yet warm, on the device and with the dtype, replicas and threads in `settings`.

        Raises:
            EngineUnavailable: A setting is not available on this backend or machine.
            PresetError: The weights cannot be read.
        """


def _tensorflow() -> EngineBuilder:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    use_keras_on("tensorflow")
    from electra_serve.engine.keras.tensorflow import build_engines

    return build_engines


def _openvino() -> EngineBuilder:
    from electra_serve.engine.openvino.build import build_engines

    return build_engines


def _jax() -> EngineBuilder:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else the first process takes all GPU memory
    use_keras_on("jax")
    from electra_serve.engine.keras.jax.build import build_engines

    return build_engines


# engine name → function that imports its builder
BUILDERS: Final[Mapping[str, Callable[[], EngineBuilder]]] = {
    "jax": _jax,
    "openvino": _openvino,
    "tensorflow": _tensorflow,
}


def load_model(
    settings: ModelSettings,
    batching: BatchingSettings,
    *,
    sources: Sequence[PresetSource] | None = None,
    progress: Progress = NO_PROGRESS,
) -> LoadedModel:
    """Loads a preset, builds its engines, warms and times them. It blocks for seconds, and longer if it fetches files.

    Raises:
        PresetError: The preset cannot be loaded, or differs from the pinned one.
        EngineUnavailable: The engine, device or dtype is not available here or for this preset.
    """
    preset = resolve_preset(settings.preset, load_weights=settings.load_weights, sources=sources)
    _require_pinned(preset, settings.sha256)
    preset = preset.with_head(settings.head)
    engine = choose_engine(settings, preset.artifact)
    settings = settings.model_copy(update={"dtype": choose_dtype(settings.dtype, preset.artifact)})
    tokenizer = load_tokenizer(preset)
    limits = ShapeLimits(preset.config.max_sequence_length, batching.max_batch_tokens)
    engines = BUILDERS[engine]()(preset, settings, limits)
    warm_up = partial(calibrate, target_batch_s=batching.target_batch_s, progress=progress, name=settings.name)
    lone_timings = warm_up([engines.lone]) if engines.lone else {}
    timings = warm_up(engines.engines)
    check_logits(engines.engines[0], preset)
    check_golden(engines.engines[0], preset)
    return LoadedModel(preset, tokenizer, engines.engines, timings, engines.lone, lone_timings)


def _require_pinned(preset: PresetFolder, sha256: str) -> None:
    if sha256 and preset.sha256 != sha256:
        raise PresetError(f"{preset.id}: its sha256 must be {sha256}, as in the settings; got {preset.sha256}")
