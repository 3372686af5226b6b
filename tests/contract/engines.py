"""Every engine that the contract holds for, and the packed batches and references that its outputs are compared with.

Keras has one backend in a process, so the engines depend on the process. An ordinary one has those on TensorFlow and
those without Keras. One with `KERAS_BACKEND=jax` has JAX's; `test_engines_on_jax.py` starts it.

`ENGINE_DEVICE=gpu` runs the suite on a GPU, for engines that run there. References are computed on the CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from electra_serve.engine.base import Engine, EngineSet
from electra_serve.engine.factory import BUILDERS
from electra_serve.engine.shapes import ShapeLimits, cpu_shapes, gpu_shapes
from electra_serve.model.loading import load_backbone
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.sources import resolve_preset
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import (
    ENCODER_OUTPUTS,
    Batch,
    BatchShape,
    Encoding,
    Float32Array,
    Output,
    Outputs,
    Placement,
    RowOutput,
)

Settings = Mapping[str, Any]

ON_JAX: Final = os.environ.get("KERAS_BACKEND") == "jax"
"""True in the process for engines that run Keras on JAX."""
DEVICE: Final = os.environ.get("ENGINE_DEVICE", "cpu")
ON_GPU: Final = DEVICE.startswith("gpu")
OF_KERAS: Final[Mapping[str, Mapping[str, Settings]]] = {
    "tensorflow": {
        "tensorflow graph": {"engine": "tensorflow", "compiler": "graph"},
        "tensorflow xla": {"engine": "tensorflow", "compiler": "xla"},
    },
    "jax": {"jax": {"engine": "jax"}},
}
"""Engines that run Keras, by its backend, each with what else there is to choose about it."""
OTHERS: Final = {name: {"engine": name} for name in sorted(set(BUILDERS) - set(OF_KERAS))}
ENGINES: Final[Mapping[str, Settings]] = OF_KERAS["jax"] if ON_JAX else {**OF_KERAS["tensorflow"], **OTHERS}

NATIVE_BFLOAT16: Final = ("avx512_bf16", "amx_bf16")
"""Flags of /proc/cpuinfo, of which a CPU that computes in bfloat16 has one."""


def computes_in(name: str, dtype: str) -> bool:
    """Returns True if that engine must compute in `dtype` here: Keras in any, OpenVINO in those of the CPU."""
    if name != "openvino":
        return True
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    return dtype == "bfloat16" and any(flag in flags for flag in NATIVE_BFLOAT16)


SHAPES: Final = gpu_shapes if ON_GPU else cpu_shapes
LIMITS: Final = ShapeLimits(max_length=20, max_positions=80 if ON_GPU else 48)
"""Two or three shapes: engines that compile each take seconds."""
SINGLE: Final = BatchShape(1, 20 if ON_GPU else 16)
"""The only shape of `ONE_SHAPE`, and the smallest of `LIMITS`."""
ONE_SHAPE: Final = ShapeLimits(max_length=SINGLE.length, max_positions=SINGLE.length)
LARGEST: Final = BatchShape(4 if ON_GPU else 2, 20)
LENGTHS: Final = (1, 5, 12)
"""Of random sequences: a few, since JAX compiles the reference for each."""
VOCAB_SIZE: Final = 8000
ALL: Final[Outputs] = ENCODER_OUTPUTS


def build(name: str, limits: ShapeLimits = LIMITS, *, preset: PresetFolder | None = None, **settings: str) -> EngineSet:
    """Engines on `preset`, by default the embedded one, not warm yet."""
    defaults = {"preset": DEMO_ID, "dtype": "float32", "device": DEVICE}
    chosen = ModelSettings.model_validate({**defaults, **ENGINES[name], **settings})
    return BUILDERS[chosen.engine]()(preset or resolve_preset(DEMO_ID), chosen, limits)


def build_one(name: str, **settings: str) -> Engine:
    """An engine, warm, that takes batches of `SINGLE`."""
    engines = build(name, ONE_SHAPE, preset=None, **settings)
    for other in engines.all()[1:]:
        other.close()
    engine = engines.engines[0]
    engine.warm_up()
    return engine


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Sequences, and the batch that they are packed in.

    Attributes:
        encodings: The sequences, in the order of the batch's placements.
        batch: The batch.
    """

    encodings: tuple[Encoding, ...]
    batch: Batch

    @classmethod
    def of(cls, encodings: Sequence[Encoding], starts: Sequence[tuple[int, int]], shape: BatchShape) -> Packed:
        """Packs each of `encodings` at its row and start, in the first slots of the row."""
        slots = [0] * shape.rows
        places = []
        for encoding, (row, start) in zip(encodings, starts, strict=True):
            places.append(Placement(row, slots[row], start, encoding.compute_length))
            slots[row] += 1
        return cls(tuple(encodings), Batch.pack(encodings, places, shape))


def random_sequence(length: int, rng: np.random.Generator) -> Encoding:
    """Random ids in two segments, with a fifth of its positions masked; often the first one too."""
    positions = np.arange(length)
    mask = (rng.random(length) < 0.8).astype(np.int32)
    mask[0] = rng.random() < 0.6
    mask[rng.integers(length)] = 1
    return Encoding(
        token_ids=rng.integers(0, VOCAB_SIZE, length, dtype=np.int32),
        segment_ids=(positions >= rng.integers(1, length + 1)).astype(np.int32),
        padding_mask=mask,
        compute_length=length,
        real_tokens=int(mask.sum()),
    )


def random_packed(shape: BatchShape, seed: int = 0, lengths: Sequence[int] = LENGTHS) -> Packed:
    """Rows of several sequences, in slots of any order, some of which are empty, with padding between and after."""
    rng = np.random.default_rng(seed)
    encodings, places = [], []
    for row in range(shape.rows):
        start = int(rng.integers(2))
        for slot in rng.permutation(shape.slots).tolist():
            fitting = [length for length in lengths if start + length <= shape.length]
            if fitting:
                encodings.append(random_sequence(int(rng.choice(fitting)), rng))
                places.append(Placement(row, slot, start, len(encodings[-1])))
                start += len(encodings[-1]) + int(rng.integers(2))
    return Packed(tuple(encodings), Batch.pack(encodings, places, shape))


def run(engine: Engine, packed: Packed, outputs: Outputs = ALL) -> list[RowOutput]:
    """Each sequence's `outputs`; fails if the engine returns others too."""
    output = engine.run(packed.batch, outputs)
    assert all(getattr(output, name.value) is None for name in ALL - outputs)
    assert all(getattr(output, name.value).dtype == np.float32 for name in outputs)
    places = packed.batch.placements
    return [output.extract(place, one, outputs) for place, one in zip(places, packed.encodings, strict=True)]


def reference(encoding: Encoding) -> Mapping[Output, Float32Array]:
    """The outputs of one sequence, by way of the Keras model itself on the sequence alone, in float32."""
    return _reference(*(getattr(encoding, name).tobytes() for name in ("token_ids", "segment_ids", "padding_mask")))


@cache
def _reference(token_ids: bytes, segment_ids: bytes, padding_mask: bytes) -> Mapping[Output, Float32Array]:
    arrays = {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}
    inputs = {name: np.frombuffer(array, np.int32)[None] for name, array in arrays.items()}  # (1, T)
    sequence, pooled = _model()(inputs)
    hidden = np.asarray(sequence)[0]  # (T, H)
    mask = inputs["padding_mask"][0][:, None].astype(np.float32)
    return {
        Output.SEQUENCE: hidden * mask,
        Output.POOLED: np.asarray(pooled)[0],
        Output.CLS: hidden[0],
        Output.MEAN: (hidden * mask).sum(axis=0) / mask.sum(),
    }


@cache
def _model() -> Callable[[Any], Any]:
    if not ON_JAX:
        backbone = load_backbone(resolve_preset(DEMO_ID), dtype="float32", load_weights=True)
        return lambda inputs: tuple(backbone(inputs))
    import jax

    [cpu, *_] = jax.devices("cpu")
    with jax.default_device(cpu):
        backbone = load_backbone(resolve_preset(DEMO_ID), dtype="float32", load_weights=True)
    # Compiles once for a length, not once for each operation.
    compiled = jax.jit(lambda inputs: tuple(backbone(inputs)))

    def compute(inputs: Any) -> Any:
        with jax.default_device(cpu):
            return compiled(inputs)

    return compute


def short_of_memory() -> Exception:
    """Returns the error that a Keras backend raises if memory is short."""
    if ON_JAX:
        import jax

        raised: Exception = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate.")
    else:
        import tensorflow as tf

        raised = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor")
    return raised
