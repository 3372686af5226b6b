"""Logits that stand in for those of a question-answering model: random, and always the same for the same ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SCALE = 3.0


def answer_logits(ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits of start and end, (T, 2)."""
    generator = np.random.default_rng([len(ids), sum(ids)])
    return (SCALE * generator.standard_normal((len(ids), 2))).astype(np.float32)
