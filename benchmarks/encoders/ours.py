"""Our engines, built and used as the service does: packed batches, on all engines at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from benchmarks.encoders.base import PackedBatch
from benchmarks.weights import preset_folder
from electra_serve.batching.cost_model import CostTable
from electra_serve.engine.base import Engine
from electra_serve.engine.factory import LoadedModel, load_model
from electra_serve.server.models import build_planner
from electra_serve.settings.schema import BatchingSettings, ModelSettings
from electra_serve.tensors import Batch, Encoding, ModelOutput, Outputs


class OurEngines:
    """The engines of a loaded model, each on a thread of its own.

    Args:
        loaded: From the service's factory.
        batching: The service's own.
    """

    def __init__(self, loaded: LoadedModel, batching: BatchingSettings) -> None:
        self._planner = build_planner(CostTable(loaded.timings), batching)
        self._engines = loaded.engines
        self._lone = loaded.lone or loaded.engines[0]
        unused: SimpleQueue[Engine] = SimpleQueue()
        for engine in loaded.engines:
            unused.put(engine)
        self._thread = threading.local()
        self._pool = ThreadPoolExecutor(len(loaded.engines), initializer=self._take_engine, initargs=(unused,))

    def pack(self, encodings: Sequence[Encoding]) -> list[PackedBatch]:
        """See `Encoder.pack`: all batches of the planner for one window."""
        plans = self._planner.plan([encoding.compute_length for encoding in encodings])
        return [
            PackedBatch(Batch.pack([encodings[i] for i in plan.sequences], plan.placements, plan.shape), plan.sequences)
            for plan in plans
        ]

    def run(self, batches: Sequence[Batch], outputs: Outputs) -> list[ModelOutput]:
        """See `Encoder.run`: on the engine for lone requests if there are fewer sequences than engines."""
        if sum(len(batch.placements) for batch in batches) < len(self._engines):
            return [self._lone.run(batch, outputs) for batch in batches]
        return list(self._pool.map(lambda batch: self._run_on_own(batch, outputs), batches))

    def _take_engine(self, unused: SimpleQueue[Engine]) -> None:
        self._thread.engine = unused.get()

    def _run_on_own(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        engine: Engine = self._thread.engine
        return engine.run(batch, outputs)


def build_ours(
    size: str, *, engine: str, dtype: str, device: str = "cpu", max_batch_tokens: int | None = None
) -> OurEngines:
    """Loads and warms engines as the service does by default, but for `max_batch_tokens` if that is given.

    Raises:
        ValueError: This version of the service does not have that engine or dtype.
        StartupError: What it needs is not installed.
    """
    preset = str(preset_folder(size))
    settings = ModelSettings.model_validate({"preset": preset, "engine": engine, "dtype": dtype, "device": device})
    batching = BatchingSettings() if max_batch_tokens is None else BatchingSettings(max_batch_tokens=max_batch_tokens)
    return OurEngines(load_model(settings, batching), batching)
