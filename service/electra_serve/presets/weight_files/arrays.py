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
        """The paths of what this format may lack, and these files do: to be drawn anew."""

    def read(self, path: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """One weight, in the precision it is stored in.

        Args:
            path: KerasHub's path of it, not one of `absent`.
            shape: The shape it must have in Keras.

        Raises:
            PresetError: It is missing, damaged, of another shape or type, or holds NaN or infinity.
        """


def require_finite(values: NDArray[Any], what: str) -> None:
    """Refuses NaN and infinity.

    Raises:
        PresetError: `values` holds one.
    """
    if not np.isfinite(values).all():
        raise PresetError(f"{what} must be finite; it holds NaN or infinity")
