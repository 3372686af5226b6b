"""Every encoder that is measured on a CPU."""

from __future__ import annotations

from functools import partial
from typing import Final

from benchmarks.encoders.base import EncoderSpec
from benchmarks.encoders.keras_hub import build_function, build_predict
from benchmarks.encoders.onnx import build_onnx
from benchmarks.encoders.ours import build_ours
from benchmarks.encoders.torch import build_torch
from benchmarks.sizes import PRESETS

ENGINES: Final = (
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("tensorflow", "float32"),
    ("tensorflow", "bfloat16"),
    ("jax", "float32"),
    ("jax", "bfloat16"),
)
"""Engine and dtype, as in the service's settings."""

SIZES: Final = {"jax": ("small",)}
"""Engines that are not measured on all sizes: on a CPU, jax compiles the small model for minutes."""

OURS: Final = tuple(
    EncoderSpec(
        f"{engine}/{dtype}",
        dtype,
        ours=True,
        build=partial(build_ours, engine=engine, dtype=dtype),
        sizes=SIZES.get(engine, tuple(PRESETS)),
    )
    for engine, dtype in ENGINES
)
OTHERS: Final = (
    EncoderSpec("KerasHub predict", "float32", ours=False, build=build_predict),
    EncoderSpec("KerasHub tf.function", "float32", ours=False, build=build_function),
    EncoderSpec("onnxruntime/float32", "float32", ours=False, build=partial(build_onnx, dtype="float32")),
    EncoderSpec("onnxruntime/int8", "int8", ours=False, build=partial(build_onnx, dtype="int8")),
    EncoderSpec("torch/float32", "float32", ours=False, build=partial(build_torch, dtype="float32")),
    EncoderSpec("torch/bfloat16", "bfloat16", ours=False, build=partial(build_torch, dtype="bfloat16")),
)
REFERENCE: Final = "KerasHub tf.function"
"""Reference for the outputs of all others, since it owns the weights."""


def our_spec(engine: str, dtype: str) -> EncoderSpec:
    """Returns the spec of one of `ENGINES`."""
    return next(spec for spec in OURS if spec.name == f"{engine}/{dtype}")
