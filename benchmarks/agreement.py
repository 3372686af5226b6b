"""Checks that all encoders compute the same, before anything is timed.

Sequences of uneven lengths are encoded together and compared with the reference at every position. All float32 numbers
must agree to 1e-3. In other dtypes, each position's vector must reach a cosine, which is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.workload import encodings
from electra_serve.tensors import DEFAULT_OUTPUTS, Encoding, Float32Array, Output, RowOutput

LENGTHS: Final = (33, 7, 20, 12)
LARGEST_DIFFERENCE: Final = 1e-3
LEAST_COSINE: Final[Mapping[str, float]] = {"float32": 0.99999, "bfloat16": 0.999, "int8": 0.98}
"""By dtype. Random weights are harder for int8 than trained ones, so its bound only detects nonsense."""
OUTPUTS: Final = DEFAULT_OUTPUTS


class Disagreement(Exception):
    """An encoder does not agree with the reference."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of an encoder with the reference.

    Attributes:
        difference: Largest absolute difference of any number.
        cosine: Least cosine of any position's vector.
    """

    difference: float
    cosine: float


def compare(found: Sequence[RowOutput], expected: Sequence[RowOutput]) -> Agreement:
    """Compares the (T, H) and (H,) outputs of the same sequences.

    Example:
        >>> one = [RowOutput(np.ones((2, 2), np.float32), np.ones(2, np.float32))]
        >>> compare(one, one).difference
        0.0
    """
    pairs = [
        (_array(ours, output), _array(theirs, output))
        for ours, theirs in zip(found, expected, strict=True)
        for output in OUTPUTS
    ]
    return Agreement(
        difference=max(float(np.abs(a - b).max()) for a, b in pairs),
        cosine=min(float(_cosines(a, b).min()) for a, b in pairs),
    )


def require_agreement(name: str, dtype: str, agreement: Agreement) -> None:
    """Checks the agreement against the bounds of its dtype.

    Raises:
        Disagreement: It is outside.
    """
    wide = dtype != "float32" or agreement.difference <= LARGEST_DIFFERENCE
    if not wide or not agreement.cosine >= LEAST_COSINE[dtype]:
        raise Disagreement(
            f"{name} must agree with the reference to {LARGEST_DIFFERENCE} in float32, and to a cosine of "
            f"{LEAST_COSINE[dtype]} in {dtype}; it differs by {agreement.difference:.2g}, cosine {agreement.cosine:.5f}"
        )


def probe() -> list[Encoding]:
    """Returns the sequences that are compared."""
    return encodings(LENGTHS)


def _cosines(a: Float32Array, b: Float32Array) -> Float32Array:
    """Of each vector: (…, H) and (…, H) to (…)."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines: Float32Array = (a * b).sum(axis=-1) / np.maximum(norms, 1e-12)
    return cosines


def _array(output: RowOutput, name: Output) -> Float32Array:
    try:
        return output.get(name)
    except KeyError:
        raise Disagreement(f"{name} is missing") from None
