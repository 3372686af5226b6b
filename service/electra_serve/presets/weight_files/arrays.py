"""The weights of a preset as named arrays, whatever file they are in."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from electra_serve.errors import PresetError


class WeightArrays(Protocol):
    """Weights by KerasHub's path, such as `layers/embedding/vars/0`; valid while their files are open."""

    @property
    def absent(self) -> frozenset[str]:
        """Paths of weights that the format may lack and these files do; they are initialized instead."""

    def read(self, path: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Reads one weight of Keras' `shape`, in the precision of the file.

        Raises:
            PresetError: It is missing, damaged, of another shape or type, or not finite.
        """


def require_finite(values: NDArray[Any], what: str) -> None:
    """Raises `PresetError` for NaN and infinity."""
    if not np.isfinite(values).all():
        raise PresetError(f"{what} must be finite; it holds NaN or infinity")
