"""Keras' backend, one per process, and its dtypes."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Final

from electra_serve.errors import EngineUnavailable

DTYPES: Final = ("float32", "bfloat16", "float16")


def use_keras_on(backend: str) -> None:
    """Selects the Keras backend, `tensorflow` or `jax`, before Keras' first import; raises `EngineUnavailable`."""
    if find_spec(backend) is None:
        raise EngineUnavailable(f"engine {backend} needs the package {backend}; see the extras in the README")
    os.environ.setdefault("KERAS_BACKEND", backend)
    import keras

    if keras.backend.backend() != backend:
        raise EngineUnavailable(f"Keras must run on {backend} for this engine; it runs on {keras.backend.backend()}")


def require_dtype(dtype: str, engine: str) -> None:
    """Raises EngineUnavailable for a dtype that Keras does not compute in."""
    if dtype not in DTYPES:
        raise EngineUnavailable(
            f"dtype must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]} for the {engine} engine; got {dtype}"
        )
