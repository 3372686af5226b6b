"""Every engine that the contract holds for, and what its answers are compared with.

Keras has one backend in a process, so each process has the engines of its own: those that run Keras on TensorFlow, and
those that run no Keras, in an ordinary one; JAX' where `KERAS_BACKEND=jax`, as `test_engines_on_jax.py` starts it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from electra_serve.engine.base import Engine, ShapeGrid
from electra_serve.engine.factory import BUILDERS
from electra_serve.model.loading import load_backbone
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.sources import resolve_preset
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import Batch, BatchShape, Float32Array, ModelOutput, Output, Outputs

Settings = Mapping[str, Any]

ON_JAX: Final = os.environ.get("KERAS_BACKEND") == "jax"
"""Whether this is the process for engines that run Keras on JAX."""
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
    """Whether that engine must compute in `dtype` here: Keras' do in any, OpenVINO in what the CPU has."""
    if name != "openvino":
        return True
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    return dtype == "bfloat16" and any(flag in flags for flag in NATIVE_BFLOAT16)


GRID: Final = ShapeGrid(max_rows=3, max_length=20, max_tokens=48)
COMPILED_GRID: Final = replace(GRID, rows=(1, 3), lengths=(8, 20))
"""For engines that compile each shape, which takes seconds: three of them."""
ALL: Final[Outputs] = frozenset(Output)


def grid_of(name: str) -> ShapeGrid:
    """The grid that the engine is tested with."""
    return COMPILED_GRID if name in {"tensorflow xla", "jax"} else GRID


def build(name: str, grid: ShapeGrid | None = None, **settings: str) -> Engine:
    """An engine on the embedded preset, not warm yet."""
    chosen = ModelSettings.model_validate({"preset": DEMO_ID, "dtype": "float32", **ENGINES[name], **settings})
    [engine] = BUILDERS[chosen.engine]()(resolve_preset(DEMO_ID), chosen, grid or grid_of(name))
    return engine


def build_for(name: str, rows: int, length: int, **settings: str) -> Engine:
    """An engine, warm, that takes batches of one shape."""
    engine = build(name, ShapeGrid(max_rows=rows, max_length=length, rows=(rows,), lengths=(length,)), **settings)
    engine.warm_up([BatchShape(rows, length)])
    return engine


def run(engine: Engine, batch: Batch, outputs: Outputs = ALL) -> ModelOutput:
    """Pads `batch` as the planner does, and cuts the padding off again."""
    rows, length = batch.token_ids.shape
    output = engine.run(batch.padded(engine.signature.grid.fit(rows, length)), outputs)
    kept = {name.value: getattr(output, name.value) for name in outputs}
    cut = {name: array[:rows, :length] if array.ndim == 3 else array[:rows] for name, array in kept.items()}
    assert all(getattr(output, name.value) is None for name in ALL - outputs)
    return ModelOutput(**cut)


def random_batch(rows: int, length: int, seed: int = 0) -> Batch:
    """Rows of different lengths, the first with a hole in its mask, the last in two segments."""
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(0, 4000, (rows, length), dtype=np.int32)
    segment_ids = np.zeros((rows, length), np.int32)
    segment_ids[-1, length // 2 :] = 1
    lengths = rng.integers(1, length + 1, rows)
    padding_mask = (np.arange(length)[None, :] < lengths[:, None]).astype(np.int32)
    padding_mask[0, lengths[0] // 2] = int(lengths[0] < 3)
    return Batch(token_ids, segment_ids, padding_mask)


@cache
def reference(rows: int, length: int, seed: int = 0) -> Mapping[Output, Float32Array]:
    """The outputs of `random_batch`, by way of the Keras model itself, in float32."""
    batch = random_batch(rows, length, seed)
    sequence, pooled = _backbone()(
        {"token_ids": batch.token_ids, "segment_ids": batch.segment_ids, "padding_mask": batch.padding_mask}
    )
    hidden = np.asarray(sequence)
    mask = batch.padding_mask[:, :, None].astype(np.float32)
    return {
        Output.SEQUENCE: hidden * mask,
        Output.POOLED: np.asarray(pooled),
        Output.CLS: hidden[:, 0],
        Output.MEAN: (hidden * mask).sum(axis=1) / mask.sum(axis=1),
    }


@cache
def _backbone() -> Any:
    return load_backbone(resolve_preset(DEMO_ID), dtype="float32", load_weights=True)


def short_of_memory() -> Exception:
    """What the backend of an engine that runs Keras raises where memory is short."""
    if ON_JAX:
        import jax

        raised: Exception = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate.")
    else:
        import tensorflow as tf

        raised = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor")
    return raised
