"""Which engine runs a model, and in which dtype, where the settings say `auto`: a table, and what is installed.

A backend is asked for by name only, never imported: that takes seconds. A GPU is looked for as the driver shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from service.errors import EngineUnavailable
from service.presets.artefact import Artefact

PREFERENCE: Final[Mapping[str, tuple[str, ...]]] = {
    "gpu": ("jax", "tensorflow"),
    "cpu": ("openvino", "tensorflow", "jax"),
}
"""Engines by device, the fastest first; the first that is installed is taken."""

DEVICES: Final = Path("/dev")


def choose_engine(
    engine: str,
    device: str,
    artefact: Artefact | None,
    *,
    installed: Callable[[str], bool] = lambda name: find_spec(name) is not None,
    has_gpu: Callable[[], bool] = lambda: any(DEVICES.glob("nvidia[0-9]*")),
) -> str:
    """The engine's name.

    Args:
        engine: As in the settings.
        device: As in the settings: `auto`, `cpu`, `gpu` or `gpu:N`.
        artefact: What the preset was compiled to, if it was.
        installed: Whether a package is.
        has_gpu: Whether this machine shows one.

    Raises:
        EngineUnavailable: None that would do is installed, or another is asked for than the artefact is for.

    Example:
        >>> choose_engine("auto", "cpu", None, installed=lambda name: name == "tensorflow")
        'tensorflow'
    """
    if artefact is not None:
        if engine not in {"auto", artefact.engine}:
            raise EngineUnavailable(
                f"engine must be auto or {artefact.engine}, which the preset was compiled for; received {engine}"
            )
        engine = artefact.engine
    if engine != "auto":
        if not installed(engine):
            raise EngineUnavailable(f"engine {engine} needs the package {engine}; it is not installed")
        return engine
    kind = "gpu" if device.startswith("gpu") or (device == "auto" and has_gpu()) else "cpu"
    for name in PREFERENCE[kind]:
        if installed(name):
            return name
    raise EngineUnavailable(f"a {kind} needs one of the packages {', '.join(PREFERENCE[kind])}; none is installed")


def choose_dtype(dtype: str, artefact: Artefact | None) -> str:
    """What to compute in: as the settings say; `auto` is what the artefact was compiled for, else float32.

    Raises:
        EngineUnavailable: int8 is asked for of what is not quantised, or another dtype of what is.

    Example:
        >>> choose_dtype("auto", None)
        'float32'
    """
    made_for = "float32" if artefact is None else artefact.dtype
    if dtype == "auto":
        return made_for
    if dtype == "int8" and made_for != "int8":
        raise EngineUnavailable(
            "dtype int8 is served from an artefact: electra-serve compile PRESET FOLDER --dtype int8; "
            "the preset is not one"
        )
    if dtype != "int8" and made_for == "int8":
        raise EngineUnavailable(f"dtype must be auto or int8, which the preset was quantised to; received {dtype}")
    return dtype
