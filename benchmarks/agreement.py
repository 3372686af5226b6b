"""Do all encoders compute the same? A benchmark of wrong answers is worthless, so this comes before any timing.

A padded batch of uneven lengths is encoded, and compared with the reference at every position that counts. float32 must
agree to 1e-3; 16 bits and 8 are held to the cosine of each position's vector, and what they reach is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.orders import Batches
from benchmarks.workload import encodings
from electra_serve.tensors import DEFAULT_OUTPUTS, Float32Array, ModelOutput

LENGTHS: Final = (33, 7, 20, 12)
LARGEST_DIFFERENCE: Final = 1e-3
LEAST_COSINE: Final[Mapping[str, float]] = {"float32": 0.99999, "bfloat16": 0.999, "int8": 0.98}
"""By dtype. Random weights are harder on int8 than trained ones: this only tells noise from nonsense."""
OUTPUTS: Final = DEFAULT_OUTPUTS


class Disagreement(Exception):
    """An encoder computes something else than the reference."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close an encoder comes to the reference.

    Attributes:
        difference: The largest, of any number of either output.
        cosine: The least, of any position's vector.
    """

    difference: float
    cosine: float


def compare(found: ModelOutput, expected: ModelOutput, lengths: Sequence[int] = LENGTHS) -> Agreement:
    """Compares (B, S, H) and (B, H) outputs where positions count; B and S may differ by padding.

    Example:
        >>> one = ModelOutput(np.ones((1, 2, 2), np.float32), np.ones((1, 2), np.float32))
        >>> compare(one, one, [2]).difference
        0.0
    """
    pairs = [(_sequence(found)[row, :n], _sequence(expected)[row, :n]) for row, n in enumerate(lengths)]
    pairs.append((_pooled(found)[: len(lengths)], _pooled(expected)[: len(lengths)]))
    return Agreement(
        difference=max(float(np.abs(a - b).max()) for a, b in pairs),
        cosine=min(float(_cosines(a, b).min()) for a, b in pairs),
    )


def require_agreement(name: str, dtype: str, agreement: Agreement) -> None:
    """Lets pass what is close enough for its dtype.

    Raises:
        Disagreement: It is not.
    """
    wide = dtype != "float32" or agreement.difference <= LARGEST_DIFFERENCE
    if not wide or not agreement.cosine >= LEAST_COSINE[dtype]:
        raise Disagreement(
            f"{name} must agree with the reference to {LARGEST_DIFFERENCE} in float32, and to a cosine of "
            f"{LEAST_COSINE[dtype]} in {dtype}; it differs by {agreement.difference:.2g}, cosine {agreement.cosine:.5f}"
        )


def probe() -> Batches:
    """The batch that is compared."""
    return [encodings(LENGTHS)]


def _cosines(a: Float32Array, b: Float32Array) -> Float32Array:
    """Of each row: (N, H) and (N, H) to (N,)."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines: Float32Array = (a * b).sum(axis=-1) / np.maximum(norms, 1e-12)
    return cosines


def _sequence(output: ModelOutput) -> Float32Array:
    if output.sequence_output is None:
        raise Disagreement("sequence_output is missing")
    return output.sequence_output


def _pooled(output: ModelOutput) -> Float32Array:
    if output.pooled_output is None:
        raise Disagreement("pooled_output is missing")
    return output.pooled_output
