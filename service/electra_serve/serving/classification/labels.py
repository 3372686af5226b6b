"""Labels of a sequence, as transformers' text-classification pipeline gives them."""

from __future__ import annotations

from typing import Final

import numpy as np

from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.serving.classification.results import Label
from electra_serve.serving.classification.scores import activate
from electra_serve.serving.classification.step_runner import BLOCK_WORK, ITEM_WORK
from electra_serve.tensors import Float32Array

SORT_WORK: Final = 20
"""Values that a label of a sequence counts as, for its score and place."""


def label_sequence(logits: Float32Array, head: HeadConfig, *, top_k: int | None, raw: bool) -> Steps[tuple[Label, ...]]:
    """Returns the `top_k` labels of (L,) logits, the best first; all for None.

    Example:
        >>> from electra_serve.presets.tokenizers.steps import finish
        >>> head = HeadConfig("sequence_classification", ("bad", "good"), "softmax")
        >>> finish(label_sequence(np.array([0, 1], np.float32), head, top_k=1, raw=True))
        (Label(label='good', score=1.0),)
    """
    scores = logits if raw else activate(logits, head.activation)
    order = np.argsort(-scores, kind="stable")[:top_k]
    yield SORT_WORK * len(scores)
    labels: list[Label] = []
    size = BLOCK_WORK // ITEM_WORK
    for start in range(0, len(order), size):
        block = order[start : start + size]
        named = zip(block.tolist(), scores[block].tolist(), strict=True)
        labels += [Label(head.labels[index], score) for index, score in named]
        yield ITEM_WORK * len(block)
    return tuple(labels)
