"""How much arithmetic a forward pass is: matrix products only, a multiply and an add counted as two.

Embeddings, norms, softmax and activations are left out, as is usual: a fraction of the machine's matrix peak then says
how much of the time those and everything else took.
"""

from __future__ import annotations

from electra_serve.presets.config import BackboneConfig


def forward_flops(config: BackboneConfig, rows: int, length: int) -> float:
    """Of `rows` sequences of `length` positions, every position of every layer.

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
