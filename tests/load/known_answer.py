"""What the stand-in engine answers: a function of a row's ids and mask, exact in float32, so that any mix-up shows.

Component h of position t is its id + h / H. [CLS] and pooled output are the first position's, the mean output is the
mean of the unmasked ids + h / H. Ids below 2¹⁴ and H a power of two below 2⁸ leave no rounding but the mean's, which
both sides do alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from electra_serve.tensors import Float32Array, Output

HIDDEN_DIM = 128
"""H of `electra_demo`."""


def known_hidden(token_ids: NDArray[np.int32], padding_mask: NDArray[np.int32], width: int) -> Float32Array:
    """(B, S) and (B, S) → (B, S, H), zeros where masked."""
    hidden = token_ids[:, :, None].astype(np.float32) + _components(width)  # (B, S, H)
    return hidden * padding_mask[:, :, None].astype(np.float32)


def known_first(token_ids: NDArray[np.int32], width: int) -> Float32Array:
    """(B, S) → (B, H)."""
    return token_ids[:, :1].astype(np.float32) + _components(width)


def known_mean(token_ids: NDArray[np.int32], padding_mask: NDArray[np.int32], width: int) -> Float32Array:
    """(B, S) and (B, S) → (B, H)."""
    means = (token_ids * padding_mask).sum(axis=1) / padding_mask.sum(axis=1)  # (B,)
    mean: Float32Array = means.astype(np.float32)[:, None] + _components(width)
    return mean


def known_answer(output: Output, ids: Sequence[int]) -> Float32Array:
    """What one row of unmasked `ids` gets.

    Example:
        >>> known_answer(Output.MEAN, [10, 20]).tolist()[:3]
        [15.0, 15.0078125, 15.015625]
        >>> known_answer(Output.SEQUENCE, [10, 20]).shape, known_answer(Output.CLS, [10, 20])[0].item()
        ((2, 128), 10.0)
    """
    row = np.array([ids], np.int32)
    if output is Output.SEQUENCE:
        answers = known_hidden(row, np.ones_like(row), HIDDEN_DIM)
    elif output is Output.MEAN:
        answers = known_mean(row, np.ones_like(row), HIDDEN_DIM)
    else:
        answers = known_first(row, HIDDEN_DIM)
    answer: Float32Array = answers[0]
    return answer


def _components(width: int) -> Float32Array:
    return np.arange(width, dtype=np.float32) / np.float32(width)
