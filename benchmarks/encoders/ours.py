"""Our engines, built as the service builds them."""

from __future__ import annotations

from benchmarks.encoders.base import MAX_LENGTH, MAX_ROWS
from benchmarks.weights import served_folder
from service.engine.base import Engine, ShapeGrid
from service.engine.factory import load_model
from service.settings import BatchingSettings, ModelSettings
from service.tensors import Batch, ModelOutput, Outputs


class OurEngine:
    """A warm engine.

    Args:
        engine: From the service's factory.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def grid(self) -> ShapeGrid:
        """See `Encoder.grid`."""
        return self._engine.signature.grid

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """See `Encoder.run`."""
        return self._engine.run(batch, outputs)


def build_ours(size: str, *, engine: str, dtype: str, device: str = "cpu") -> OurEngine:
    """Loads and warms an engine for every batch that the benchmarks have.

    Raises:
        ValueError: This version of the service does not have that engine or dtype.
        StartupError: What it needs is not installed.
    """
    settings = ModelSettings.model_validate(
        {"preset": str(served_folder(size, dtype)), "engine": engine, "dtype": dtype, "device": device}
    )
    largest = BatchingSettings(max_batch_sequences=MAX_ROWS, max_batch_tokens=MAX_ROWS * MAX_LENGTH)
    return OurEngine(load_model(settings, largest).engines[0])
