"""Packed batches of published architectures on the device, against the Keras model in float32 on the CPU.

Sequences have holes in their masks, as in `tests.contract.engines`, and share rows; the reference computes each in a
row of its own. Both programs are compared: every position, and [CLS] alone.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from electra_serve.engine.base import Engine
from electra_serve.engine.factory import BUILDERS
from electra_serve.engine.shapes import ShapeLimits
from electra_serve.model.loading import load_backbone
from electra_serve.presets.sources import resolve_preset
from electra_serve.tensors import Encoding, Float32Array, Output, RowOutput
from tests.contract.engines import Packed, random_packed, run
from tools.gpu_kit.stages.models import CPU_SIZES, validated
from tools.gpu_kit.stages.stage import Bench

SIZES: Final = ("base", "small", "large")
DTYPES: Final = ("float32", "bfloat16", "float16")
LENGTHS: Final = (1, 2, 9, 33, 60, 128)
LIMITS: Final = ShapeLimits(max_length=128, max_positions=2048)
CPU_LIMITS: Final = ShapeLimits(max_length=32, max_positions=64)
LARGEST_DIFFERENCE: Final = 1e-5
LEAST_COSINE: Final = 0.9995
CLS: Final = frozenset({Output.CLS})


@dataclass(slots=True)
class Distance:
    """The largest difference of a number and the least cosine of a token's vector, so far."""

    difference: float = 0.0
    cosine: float = 1.0

    def add(self, found: Float32Array, expected: Float32Array) -> None:
        """Takes vectors into account: (…, H)."""
        norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
        self.difference = max(self.difference, float(np.abs(found - expected).max()))
        self.cosine = min(self.cosine, float(((found * expected).sum(axis=-1) / norms).min()))


def measure_exactness(bench: Bench) -> None:
    """Records difference and cosine for each size and dtype."""
    for size in SIZES if bench.on_gpu else CPU_SIZES:
        for dtype in DTYPES if bench.on_gpu else DTYPES[:2]:
            _measure(bench, size, dtype)
            gc.collect()


def _measure(bench: Bench, size: str, dtype: str) -> None:
    settings = validated(size, bench.device, dtype)
    preset = resolve_preset(settings.preset, load_weights=settings.load_weights)
    limits = LIMITS if bench.on_gpu else CPU_LIMITS
    engine = BUILDERS["jax"]()(preset, settings, limits).engines[0]
    engine.warm_up()
    lengths = [length for length in LENGTHS if length <= limits.max_length]
    batches = [random_packed(shape, lengths=lengths) for shape in engine.signature.shapes]
    hidden = _reference(size, bench.device, batches, limits.max_length)
    distance = _distance(engine, batches, hidden)
    engine.close()
    labels = {"size": size, "dtype": dtype}
    bench.recorder.add("largest_difference", [distance.difference], **labels)
    bench.recorder.add("least_cosine", [distance.cosine], **labels)
    exact = distance.difference <= LARGEST_DIFFERENCE if dtype == "float32" else distance.cosine >= LEAST_COSINE
    attention = "fused" if getattr(engine, "_attend", None) is not None else "plain"
    detail = f"difference {distance.difference:.2g}, cosine {distance.cosine:.6f}, attention {attention}"
    bench.recorder.check(f"{size} in {dtype} on {engine.signature.device} is exact", exact, detail)


def _distance(engine: Engine, batches: Sequence[Packed], hidden: Sequence[Float32Array]) -> Distance:
    distance, expected = Distance(), iter(hidden)
    for packed in batches:
        rows: list[RowOutput] = run(engine, packed)
        firsts = run(engine, packed, CLS)
        for row, first, encoding in zip(rows, firsts, packed.encodings, strict=True):
            states, kept = next(expected), encoding.padding_mask == 1  # (T, H), (T,)
            distance.add(row.get(Output.SEQUENCE)[kept], states[kept])
            distance.add(row.get(Output.MEAN), states[kept].mean(axis=0))
            distance.add(row.get(Output.CLS), states[0])
            distance.add(first.get(Output.CLS), states[0])
    return distance


def _reference(size: str, device: str, batches: Sequence[Packed], length: int) -> list[Float32Array]:
    """The (T, H) hidden states of every sequence, from the Keras model on the CPU."""
    import jax

    settings = validated(size, device, "float32")
    preset = resolve_preset(settings.preset, load_weights=settings.load_weights)
    encodings = [encoding for packed in batches for encoding in packed.encodings]
    with jax.default_device(jax.devices("cpu")[0]):
        backbone = load_backbone(preset, dtype="float32", load_weights=settings.load_weights)
        states = np.asarray(jax.jit(lambda inputs: backbone(inputs)[0])(_padded(encodings, length)))  # (B, T, H)
    return [states[index, : len(encoding)] for index, encoding in enumerate(encodings)]


def _padded(encodings: Sequence[Encoding], length: int) -> dict[str, Any]:
    inputs = {
        name: np.zeros((len(encodings), length), np.int32) for name in ("token_ids", "segment_ids", "padding_mask")
    }
    for row, encoding in enumerate(encodings):
        for name, array in inputs.items():
            array[row, : len(encoding)] = getattr(encoding, name)
    return inputs
