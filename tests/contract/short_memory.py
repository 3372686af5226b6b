"""Short memory, on a GPU that is filled or on a CPU that claims it, under a service with a real engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import structlog

from electra_serve.engine.base import Engine
from electra_serve.engine.factory import LoadedModel
from electra_serve.engine.profiling import calibrate
from electra_serve.engine.shapes import ShapeLimits
from electra_serve.observability.metrics import Metrics
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import load_tokenizer
from electra_serve.server.models import build_manager
from electra_serve.serving.encode import EncodeRequest
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.service import InferenceService
from electra_serve.settings.schema import BatchingSettings, ModelSettings, Settings
from electra_serve.tensors import Output, RowOutput, TokenInput
from tests.contract.engines import ON_GPU, build, short_of_memory
from tests.fakes import text_encoder

LIMITS: Final = ShapeLimits(128, 8192) if ON_GPU else ShapeLimits(32, 64)
SEQUENCES: Final = 64 if ON_GPU else 6
LENGTH: Final = LIMITS.max_length - 8
SPARE_BYTES: Final = 2**23
"""Left free on a filled GPU: enough for a row, too little for a batch of `LIMITS.max_positions` in float32."""
LEAST_BYTES: Final = 2**18


@dataclass(frozen=True, slots=True)
class Served:
    """The demo model behind its queue.

    Attributes:
        engine: Computes; warm.
        registry: Has the model.
        metrics: Counts its batches.
    """

    engine: Engine
    registry: ModelRegistry
    metrics: Metrics

    async def encode(self) -> list[RowOutput]:
        """Encodes `SEQUENCES` sequences at once."""
        ids = np.random.default_rng(0).integers(0, 8000, (SEQUENCES, LENGTH), dtype=np.int32)
        request = EncodeRequest(TokenInput(list(ids)), outputs=frozenset({Output.MEAN}))
        return list((await InferenceService(self.registry, text_encoder()).encode(request)).rows)

    def batches_out_of_memory(self) -> float:
        return self.metrics.registry.get_sample_value("electra_out_of_memory_total", {"model": DEMO_ID}) or 0.0

    def max_positions(self) -> int:
        """The largest batch that is still planned."""
        [batcher] = self.registry.batchers
        return batcher.batch_tokens


@contextlib.asynccontextmanager
async def serve_demo() -> AsyncIterator[Served]:
    """Serves the demo model with shapes of `LIMITS`."""
    engines = build("jax", LIMITS)
    metrics, settings = Metrics("test"), Settings(models=(ModelSettings(preset=DEMO_ID),))

    def load(_: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        preset = resolve_preset(DEMO_ID)
        timings = calibrate(engines.engines, batching.target_batch_s)
        return LoadedModel(preset, load_tokenizer(preset), engines.engines, timings)

    registry = ModelRegistry(settings.models)
    manager = build_manager(settings, registry, metrics, structlog.get_logger(), load=load)
    await manager.load_all()
    yield Served(engines.engines[0], registry, metrics)
    await manager.close()


@contextlib.contextmanager
def memory_short_for_large_batches(engine: Engine) -> Iterator[None]:
    """Leaves memory for small batches only."""
    with _filled_gpu() if ON_GPU else _failing_programs(engine):
        yield


@contextlib.contextmanager
def _filled_gpu() -> Iterator[None]:
    import jax
    import jax.numpy as jnp

    [gpu, *_] = jax.devices("gpu")
    spare = jnp.zeros(SPARE_BYTES, jnp.uint8, device=gpu).block_until_ready()
    filling, size = [], 2**30
    while size >= LEAST_BYTES:
        try:
            filling.append(jnp.zeros(size, jnp.uint8, device=gpu).block_until_ready())
        except jax.errors.JaxRuntimeError:
            size //= 2
    spare.delete()
    try:
        yield
    finally:
        for array in filling:
            array.delete()


@contextlib.contextmanager
def _failing_programs(engine: Engine) -> Iterator[None]:
    programs: dict[Any, Any] = engine._programs  # type: ignore[attr-defined]
    kept = dict(programs)

    def fail(*_: object) -> None:
        raise short_of_memory()

    programs.update({key: fail for key in kept if key[1].rows > 1})
    try:
        yield
    finally:
        programs.update(kept)
