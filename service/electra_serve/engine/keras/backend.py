"""What engines that run Keras have in common: Keras' one backend, and its dtypes.

Keras computes on one backend in a process, the one that `KERAS_BACKEND` names when Keras is first imported.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Final

from electra_serve.errors import EngineUnavailable

DTYPES: Final = ("float32", "bfloat16", "float16")


def use_keras_on(backend: str) -> None:
    """Makes Keras run on `backend`, where that is still open.

    Args:
        backend: `tensorflow` or `jax`.

    Raises:
        EngineUnavailable: It is not installed, or Keras already runs on another.
    """
    if find_spec(backend) is None:
        raise EngineUnavailable(f"engine {backend} needs {backend} installed; see the extras in the README")
    os.environ.setdefault("KERAS_BACKEND", backend)
    import keras

    if keras.backend.backend() != backend:
        raise EngineUnavailable(f"Keras must run on {backend} for this engine; it runs on {keras.backend.backend()}")


def require_dtype(dtype: str, engine: str) -> None:
    """Does nothing where Keras computes in `dtype`.

    Raises:
        EngineUnavailable: It does not.

    Example:
        >>> require_dtype("int8", "jax")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        electra_serve.errors.EngineUnavailable: dtype must be float32, bfloat16 or float16 for the jax engine; ...
    """
    if dtype not in DTYPES:
        raise EngineUnavailable(
            f"dtype must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]} for the {engine} engine; received {dtype}"
        )
