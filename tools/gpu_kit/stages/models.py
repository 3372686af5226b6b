"""Models of the kit: published architectures with drawn weights on a GPU, a tiny one on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.weights import preset_folder
from electra_serve.settings.schema import ModelSettings

GPU_SIZES: Final = ("small", "base", "large")
CPU_SIZES: Final = ("tiny",)
CPU_BATCH_TOKENS: Final = 64
"""Keeps compilation on CPUs short: few shapes."""


def sizes_on(device: str) -> tuple[str, ...]:
    """Sizes that are served on `gpu` or `cpu`."""
    return GPU_SIZES if device == "gpu" else CPU_SIZES


def dtype_on(device: str) -> str:
    """The dtype that is served there."""
    return "bfloat16" if device == "gpu" else "float32"


def model_settings(size: str, device: str, dtype: str = "") -> dict[str, Any]:
    """Settings of one model under the name of its size; weights are drawn, with no files for published sizes."""
    common: Mapping[str, Any] = {"name": size, "engine": "jax", "dtype": dtype or dtype_on(device)}
    if device == "gpu":
        preset = f"electra_{size}_discriminator_uncased_en"
        return {**common, "preset": preset, "load_weights": False, "device": "gpu:0"}
    return {
        **common,
        "preset": str(preset_folder(size)),
        "device": "cpu",
        "batching": {"max_batch_tokens": CPU_BATCH_TOKENS},
    }


def validated(size: str, device: str, dtype: str) -> ModelSettings:
    """The same, as the service's own settings."""
    return ModelSettings.model_validate(model_settings(size, device, dtype))
