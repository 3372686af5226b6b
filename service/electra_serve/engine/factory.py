"""Settings → a loaded model: its preset, its tokenizer, and warm engines.

Choosing an engine is a table. A backend is imported only when its engine is asked for: an import of one
takes seconds and hundreds of megabytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from electra_serve.engine.base import Engine, EngineSet
from electra_serve.engine.golden import check_golden
from electra_serve.engine.keras.backend import use_keras_on
from electra_serve.engine.profiling import Timings, calibrate
from electra_serve.engine.selection import choose_dtype, choose_engine
from electra_serve.engine.shapes import ShapeLimits
from electra_serve.errors import PresetError
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.sources import PresetSource, resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer, load_tokenizer
from electra_serve.settings.schema import BatchingSettings, ModelSettings


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model ready to be put behind a queue.

    Attributes:
        preset: Where it came from.
        tokenizer: The tokenizer, or the reason why there is none.
        engines: Its engines that share the queue, warm, at least one.
        timings: Seconds of each batch shape on one of them.
        lone: One more with all cores, for lone requests, if there is one.
        lone_timings: Seconds of each batch shape on that.
    """

    preset: PresetFolder
    tokenizer: Tokenizer | NoTokenizer
    engines: tuple[Engine, ...]
    timings: Timings
    lone: Engine | None = None
    lone_timings: Timings = field(default_factory=dict)

    @property
    def all_engines(self) -> tuple[Engine, ...]:
        """Every engine."""
        return EngineSet(self.engines, self.lone).all()


class EngineBuilder(Protocol):
    """Builds the engines of one model for one backend."""

    def __call__(self, preset: PresetFolder, settings: ModelSettings, limits: ShapeLimits) -> EngineSet:
        """Builds engines, not yet warm, as `settings.replicas` and `settings.threads` say.

        Raises:
            EngineUnavailable: The device asked for is not here.
            PresetError: The weights cannot be read.
        """


def _tensorflow() -> EngineBuilder:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings and worse
    use_keras_on("tensorflow")
    from electra_serve.engine.keras.tensorflow import build_engines

    return build_engines


def _openvino() -> EngineBuilder:
    from electra_serve.engine.openvino.build import build_engines

    return build_engines


def _jax() -> EngineBuilder:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or a second process finds no GPU memory left
    use_keras_on("jax")
    from electra_serve.engine.keras.jax.build import build_engines

    return build_engines


BUILDERS: Final[Mapping[str, Callable[[], EngineBuilder]]] = {
    "jax": _jax,
    "openvino": _openvino,
    "tensorflow": _tensorflow,
}
"""Engine name in settings → where its builder is imported; EngineUnavailable is raised where that cannot be."""


def load_model(
    settings: ModelSettings, batching: BatchingSettings, *, sources: Sequence[PresetSource] | None = None
) -> LoadedModel:
    """Loads a preset, builds its engines, warms and times them.

    Takes seconds, and as long as fetching takes; call it off the event loop.

    Args:
        settings: Which model, on what.
        batching: The largest batches to prepare for.
        sources: Where presets come from; default: `electra_serve.presets.sources.default_sources()`.

    Raises:
        PresetError: The preset cannot be loaded, or is not the one that the settings pin.
        EngineUnavailable: The engine, device or dtype asked for is not to be had here, or not of this preset.
    """
    preset = resolve_preset(settings.preset, load_weights=settings.load_weights, sources=sources)
    _require_pinned(preset, settings.sha256)
    engine = choose_engine(settings, preset.artifact)
    settings = settings.model_copy(update={"dtype": choose_dtype(settings.dtype, preset.artifact)})
    tokenizer = load_tokenizer(preset)
    limits = ShapeLimits(preset.config.max_sequence_length, batching.max_batch_tokens)
    engines = BUILDERS[engine]()(preset, settings, limits)
    lone_timings = calibrate([engines.lone], batching.target_batch_s) if engines.lone else {}
    timings = calibrate(engines.engines, batching.target_batch_s)
    check_golden(engines.engines[0], preset)
    return LoadedModel(preset, tokenizer, engines.engines, timings, engines.lone, lone_timings)


def _require_pinned(preset: PresetFolder, sha256: str) -> None:
    if sha256 and preset.sha256 != sha256:
        raise PresetError(f"{preset.id}: its sha256 must be {sha256}, as the settings say; it is {preset.sha256}")
