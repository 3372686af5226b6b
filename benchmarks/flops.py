"""Arithmetic of a forward pass: matrix products only, a multiply and an add counted as two.

Embeddings, norms, softmax and activations are left out, as is usual. The rest of a fraction of the machine's matrix
peak is then the share of these and of everything else.
"""

from __future__ import annotations

from electra_serve.presets.config import BackboneConfig


def forward_flops(config: BackboneConfig, rows: int, length: int) -> float:
    """Returns the operations of `rows` sequences of `length` positions, every position of every layer.

    Example:
        >>> small = BackboneConfig(30522, 12, 4, 256, 128, 1024)
        >>> round(forward_flops(small, 8, 128) / 1e9, 1)
        21.0
    """
    h, e, i = config.hidden_dim, config.embedding_dim, config.intermediate_dim
    projection = 2 * e * h if e != h else 0
    dense = 2 * (4 * h * h + 2 * h * i)  # query, key, value, output; in and out of the feed-forward layer
    attention = 4 * h * length  # scores, and the sum they weigh
    per_position = projection + config.num_layers * (dense + attention)
    return float(rows * length * per_position)
