"""Outputs of the stand-in engine: a function of ids and mask, with the same bits on both sides, so that a mix-up shows.

Component h of position t is its id + h / H. [CLS] and pooled output are those of the first position. The mean output is
the mean of the unmasked ids + h / H, and the embedding is the mean at length 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from electra_serve.tensors import Batch, Float32Array, Output

HIDDEN_DIM = 192
"""H of `electra_demo`."""


def known_hidden(batch: Batch, width: int) -> Float32Array:
    """Returns the sequence output, (R, P, H); zeros at masked positions."""
    return _vectors(batch.token_ids, width) * batch.padding_mask[:, :, None].astype(np.float32)


def known_first(batch: Batch, width: int) -> Float32Array:
    """Returns the [CLS] and pooled outputs, (R, S, H)."""
    return _vectors(np.take_along_axis(batch.token_ids, batch.starts, axis=1), width)


def known_mean(batch: Batch, width: int) -> Float32Array:
    """Returns the mean output, (R, S, H)."""
    sums = _slot_sums(batch, batch.token_ids * batch.padding_mask)  # (R, S)
    return _vectors(sums / np.maximum(_slot_sums(batch, batch.padding_mask), 1), width)


def known_answer(output: Output, ids: Sequence[int]) -> Float32Array:
    """Returns the output of one sequence of unmasked `ids`.

    Example:
        >>> known_answer(Output.MEAN, [10, 20]).tolist()[:3]
        [15.0, 15.005208015441895, 15.010416984558105]
        >>> known_answer(Output.SEQUENCE, [10, 20]).shape, known_answer(Output.CLS, [10, 20])[0].item()
        ((2, 192), 10.0)
    """
    token_ids = np.array(ids, np.int32)
    if output is Output.SEQUENCE:
        return _vectors(token_ids, HIDDEN_DIM)
    mean = output in {Output.MEAN, Output.EMBEDDING}
    vector = _vectors(np.asarray(token_ids.mean() if mean else token_ids[0]), HIDDEN_DIM)
    if output is Output.EMBEDDING:
        vector /= np.linalg.norm(vector)
    return vector


def _vectors(numbers: NDArray[np.generic], width: int) -> Float32Array:
    """Makes a vector of each number, (…) to (…, H)."""
    components = np.arange(width, dtype=np.float32) / np.float32(width)
    vectors: Float32Array = numbers.astype(np.float32)[..., None] + components
    return vectors


def _slot_sums(batch: Batch, numbers: NDArray[np.int32]) -> NDArray[np.generic]:
    """Sums of numbers over the positions of each slot, (R, P) to (R, S)."""
    rows, slots = batch.starts.shape
    slot = np.arange(rows)[:, None] * (slots + 1) + batch.sequence_ids  # (R, P); the first of each row is padding
    sums = np.bincount(slot.ravel(), numbers.ravel(), minlength=rows * (slots + 1))
    return sums.reshape(rows, slots + 1)[:, 1:]
