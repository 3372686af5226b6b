"""How fresh weights are drawn."""

from __future__ import annotations

import keras


def kernel_initializer() -> keras.initializers.Initializer:
    """A fresh TruncatedNormal(0.02), as the original ELECTRA; an initializer must not be shared between weights."""
    return keras.initializers.TruncatedNormal(stddev=0.02)
