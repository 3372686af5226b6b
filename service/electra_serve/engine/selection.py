"""Selects engine and dtype for `auto` settings. Backends are looked up, never imported, since that takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from electra_serve.errors import EngineUnavailable
from electra_serve.presets.artifact import Artifact
from electra_serve.settings.schema import ModelSettings

_JAX_ON_GPUS: Final = ("jax_cuda12_plugin", "jax_cuda13_plugin")
Candidates = Sequence[tuple[str, Sequence[str]]]
# Engines by device, fastest first, each with packages of which one must be installed. The packages jax and tensorflow
# exist without GPU libraries. `any gpu` is for device `auto`, which falls back to the CPU.
PREFERENCE: Final[Mapping[str, Candidates]] = {
    "gpu": (("jax", _JAX_ON_GPUS), ("tensorflow", ("tensorflow",))),
    "any gpu": (("jax", _JAX_ON_GPUS), ("tensorflow", ("nvidia",))),
    "cpu": (("openvino", ("openvino",)), ("tensorflow", ("tensorflow",)), ("jax", ("jax",))),
}

OPENVINO_DTYPES: Final = ("auto", "float32", "bfloat16", "int8")

DEVICES: Final = Path("/dev")


def choose_engine(
    settings: ModelSettings,
    artifact: Artifact | None = None,
    *,
    installed: Callable[[str], bool] = lambda name: find_spec(name) is not None,
    has_gpu: Callable[[], bool] = lambda: any(DEVICES.glob("nvidia[0-9]*")),
) -> str:
    """Returns the name of the engine to use; raises EngineUnavailable if none that fits is installed."""
    engine = settings.engine if artifact is None else _engine_of(artifact, settings.engine)
    if engine != "auto":
        if not installed(engine):
            raise EngineUnavailable(f"engine {engine} needs the package {engine}, which is not installed")
        return engine
    candidates = _candidates(settings, has_gpu)
    for name, packages in candidates:
        if installed(name) and any(installed(package) for package in packages):
            return name
    valid = ", ".join(f"{name} with {' or '.join(packages)}" for name, packages in candidates)
    raise EngineUnavailable(f"device {settings.device} needs one of the packages {valid}; none is installed")


def _engine_of(artifact: Artifact, asked: str) -> str:
    if asked not in {"auto", artifact.engine}:
        raise EngineUnavailable(
            f"engine must be auto or {artifact.engine}, which the preset was compiled for; got {asked}"
        )
    return artifact.engine


def _candidates(settings: ModelSettings, has_gpu: Callable[[], bool]) -> Candidates:
    if settings.device.startswith("gpu"):
        kinds = ["gpu"]
    else:
        kinds = ["any gpu", "cpu"] if settings.device == "auto" and has_gpu() else ["cpu"]
    return [candidate for kind in kinds for candidate in PREFERENCE[kind] if _supports(candidate[0], settings)]


def _supports(engine: str, settings: ModelSettings) -> bool:
    if settings.compiler != "auto":  # a setting of TensorFlow only
        return engine == "tensorflow"
    return engine != "openvino" or settings.dtype in OPENVINO_DTYPES


def choose_dtype(dtype: str, artifact: Artifact | None) -> str:
    """Returns the dtype to compute in; raises EngineUnavailable if either artifact or setting is int8, but not both."""
    made_for = "float32" if artifact is None else artifact.dtype
    if dtype == "auto":
        return made_for
    if artifact is not None and (dtype == "int8") != (made_for == "int8"):
        raise EngineUnavailable(
            f"dtype must be auto or {made_for} for this artifact; got {dtype}: compile {artifact.preset:.80} again "
            f"with --dtype {dtype}"
        )
    return dtype
