"""Our engines, built as the service builds them."""

from __future__ import annotations

from benchmarks.encoders.base import MAX_ROWS
from benchmarks.weights import served_folder
from electra_serve.engine.base import Engine, ShapeGrid
from electra_serve.engine.factory import BUILDERS, load_model
from electra_serve.presets.sources import resolve_preset
from electra_serve.settings.schema import BatchingSettings, ModelSettings
from electra_serve.tensors import Batch, ModelOutput, Outputs


class OurEngine:
    """A warm engine.

    Args:
        engine: From the service's factory.
        max_tokens: Most positions that the service would put into a batch.
    """

    def __init__(self, engine: Engine, max_tokens: int) -> None:
        self._engine = engine
        self._max_tokens = max_tokens

    @property
    def grid(self) -> ShapeGrid:
        """See `Encoder.grid`."""
        return self._engine.signature.grid

    @property
    def max_tokens(self) -> int:
        """See `Encoder.max_tokens`."""
        return self._max_tokens

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """See `Encoder.run`."""
        return self._engine.run(batch, outputs)


def build_ours(size: str, *, engine: str, dtype: str) -> OurEngine:
    """Loads and warms an engine as the service does by default, on the CPU.

    Raises:
        ValueError: This version of the service does not have that engine or dtype.
        StartupError: What it needs is not installed.
    """
    batching = BatchingSettings(max_batch_sequences=MAX_ROWS)
    loaded = load_model(_settings(size, engine, dtype, "cpu"), batching)
    return OurEngine(loaded.engines[0], batching.max_batch_tokens)


def build_on_grid(size: str, *, engine: str, dtype: str, device: str, grid: ShapeGrid) -> OurEngine:
    """Builds an engine for the shapes of `grid` alone: those that compile need not compile others."""
    settings = _settings(size, engine, dtype, device)
    built = BUILDERS[engine]()(resolve_preset(settings.preset), settings, grid)[0]
    built.warm_up([grid.fit(grid.max_rows, grid.max_length)])
    return OurEngine(built, grid.max_rows * grid.max_length)


def _settings(size: str, engine: str, dtype: str, device: str) -> ModelSettings:
    preset = str(served_folder(size, dtype))
    return ModelSettings.model_validate({"preset": preset, "engine": engine, "dtype": dtype, "device": device})
