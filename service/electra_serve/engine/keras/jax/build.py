"""Builds the JAX engines of one model."""

from __future__ import annotations

from typing import Any

import jax

from electra_serve.engine.base import EngineSet
from electra_serve.engine.keras.backend import require_dtype
from electra_serve.engine.keras.jax.attention import fused_attention
from electra_serve.engine.keras.jax.engine import JaxEngine
from electra_serve.engine.keras.placement import choose_devices, device_index
from electra_serve.engine.shapes import ShapeLimits, cpu_shapes, gpu_shapes
from electra_serve.errors import EngineUnavailable
from electra_serve.model.loading import load_encoder
from electra_serve.presets.folder import PresetFolder
from electra_serve.settings.schema import ModelSettings


def build_engines(preset: PresetFolder, settings: ModelSettings, limits: ShapeLimits) -> EngineSet:
    """Builds the replicas of one model, by default one; replicas on one device share its weights."""
    require_dtype(settings.dtype, "jax")
    if settings.compiler == "graph":
        raise EngineUnavailable("compiler must be auto or xla for the jax engine; received graph")
    gpus = _gpus()
    names = choose_devices(settings.device, settings.replicas or 1, len(gpus), backend="JAX")
    if settings.threads and "cpu" in names:
        raise EngineUnavailable(f"threads must be 0 for the jax engine, which sizes its pool; got {settings.threads}")
    host = _host()
    with jax.default_device(host):  # from where they go to each device once
        encoder = load_encoder(preset, dtype=settings.dtype, load_weights=settings.load_weights)
    devices = {name: host if name == "cpu" else gpus[device_index(name)] for name in names}
    weights = {name: jax.device_put([w.value for w in encoder.weights], device) for name, device in devices.items()}
    shapes = cpu_shapes(limits) if names[0] == "cpu" else gpu_shapes(limits)
    return EngineSet(
        tuple(
            JaxEngine(
                encoder,
                weights[name],
                device=devices[name],
                name=name,
                shapes=shapes,
                fused=fused_attention(devices[name], settings.dtype),
            )
            for name in names
        )
    )


def _host() -> Any:
    try:
        return jax.devices("cpu")[0]
    except RuntimeError as error:
        raise EngineUnavailable("JAX_PLATFORMS must name cpu too: weights are read there; it does not") from error


def _gpus() -> list[Any]:
    try:
        return list(jax.devices("gpu"))
    except RuntimeError:  # how JAX says that there are none
        return []
