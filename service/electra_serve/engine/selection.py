"""Which engine runs a model, and in which dtype, where the settings say `auto`: a table, and what is installed.

A backend is asked for by name only, never imported: that takes seconds. A GPU is looked for as the driver shows it.
"""

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
PREFERENCE: Final[Mapping[str, Candidates]] = {
    "gpu": (("jax", _JAX_ON_GPUS), ("tensorflow", ("tensorflow",))),
    "any gpu": (("jax", _JAX_ON_GPUS), ("tensorflow", ("nvidia",))),
    "cpu": (("openvino", ("openvino",)), ("tensorflow", ("tensorflow",)), ("jax", ("jax",))),
}
"""Engines by device, the fastest first, each with packages of which one must be there too: jax and tensorflow are also
to be had without the libraries for GPUs. `any gpu` is for whoever did not ask for one; a CPU will then do as well."""

OPENVINO_DTYPES: Final = ("auto", "float32", "bfloat16", "int8")

DEVICES: Final = Path("/dev")


def choose_engine(
    settings: ModelSettings,
    artifact: Artifact | None = None,
    *,
    installed: Callable[[str], bool] = lambda name: find_spec(name) is not None,
    has_gpu: Callable[[], bool] = lambda: any(DEVICES.glob("nvidia[0-9]*")),
) -> str:
    """The engine's name.

    Args:
        settings: Which engine, device, dtype and compiler are asked for.
        artifact: What the preset was compiled to, if it was.
        installed: Whether a package is.
        has_gpu: Whether this machine shows one.

    Raises:
        EngineUnavailable: None that would do is installed, or another is asked for than the artifact is for.

    Example:
        >>> choose_engine(ModelSettings(preset="p", device="cpu"), installed=lambda name: name == "tensorflow")
        'tensorflow'
    """
    engine = settings.engine if artifact is None else _engine_of(artifact, settings.engine)
    if engine != "auto":
        if not installed(engine):
            raise EngineUnavailable(f"engine {engine} needs the package {engine}; it is not installed")
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
            f"engine must be auto or {artifact.engine}, which the preset was compiled for; received {asked}"
        )
    return artifact.engine


def _candidates(settings: ModelSettings, has_gpu: Callable[[], bool]) -> Candidates:
    """What to prefer, less what does not do what is asked for."""
    if settings.device.startswith("gpu"):
        kinds = ["gpu"]
    else:
        kinds = ["any gpu", "cpu"] if settings.device == "auto" and has_gpu() else ["cpu"]
    return [candidate for kind in kinds for candidate in PREFERENCE[kind] if _does(candidate[0], settings)]


def _does(engine: str, settings: ModelSettings) -> bool:
    if settings.compiler != "auto":  # a choice that TensorFlow alone has
        return engine == "tensorflow"
    return engine != "openvino" or settings.dtype in OPENVINO_DTYPES


def choose_dtype(dtype: str, artifact: Artifact | None) -> str:
    """What to compute in: as the settings say; `auto` is what the artifact was compiled for, else float32.

    Raises:
        EngineUnavailable: int8 is asked for of an artifact with other weights, or another dtype of one with int8.

    Example:
        >>> choose_dtype("auto", None)
        'float32'
    """
    made_for = "float32" if artifact is None else artifact.dtype
    if dtype == "auto":
        return made_for
    if artifact is not None and (dtype == "int8") != (made_for == "int8"):
        raise EngineUnavailable(
            f"dtype must be auto or {made_for} for this artifact; got {dtype}: compile {artifact.preset:.80} again "
            f"with --dtype {dtype}"
        )
    return dtype
