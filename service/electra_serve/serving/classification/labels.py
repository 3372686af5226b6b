"""Labels of a sequence, as transformers' text-classification pipeline gives them."""

from __future__ import annotations

import numpy as np

from electra_serve.presets.heads import HeadConfig
from electra_serve.serving.classification.results import Label
from electra_serve.serving.classification.scores import activate
from electra_serve.tensors import Float32Array


def label_sequence(logits: Float32Array, head: HeadConfig, *, top_k: int | None, raw: bool) -> tuple[Label, ...]:
    """Returns the `top_k` labels of (L,) logits, the best first; all for None.

    Example:
        >>> head = HeadConfig("sequence_classification", ("bad", "good"), "softmax")
        >>> label_sequence(np.array([0, 1], np.float32), head, top_k=1, raw=True)
        (Label(label='good', score=1.0),)
    """
    scores = logits if raw else activate(logits, head.activation)
    order = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(Label(head.labels[index], float(scores[index])) for index in order)
