"""Which attention a device computes best: cuDNN's fused one on GPUs in 16 bits, where it works, else Keras' own.

cuDNN never writes the (T, T) scores to memory. It supports some GPUs, types and head widths, and says so only when
asked to compile; so it is asked once, while warming up, for the shortest and the longest sequences, and its numbers
are compared with plain attention's on a mask with a hole.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from electra_serve.engine.base import ShapeGrid
from electra_serve.model.attention import MASKED_SCORE, Attend

TOLERANCE: Final = 0.05
"""Largest difference of one number from plain attention's; both are means of standard normal values. Either type rounds
to 0.01; a mask that is not heeded is 0.3 away."""

_log = logging.getLogger(__name__)


def cudnn_attention(query: Any, key: Any, value: Any, bias: Any | None) -> Any:
    """cuDNN's: see `electra_serve.model.attention.Attend`."""
    batch, length = query.shape[:2]
    mask = None if bias is None else jnp.broadcast_to(bias > MASKED_SCORE, (batch, 1, length, length))
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")


def xla_attention(query: Any, key: Any, value: Any, bias: Any | None) -> Any:
    """JAX' own, unfused, with its softmax in float32: what fused attention is compared with."""
    mask = None if bias is None else bias > MASKED_SCORE
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="xla")


def choose_attention(device: Any, dtype: str, heads: tuple[int, int], grid: ShapeGrid) -> Attend | None:
    """Fused attention for `device`, or None for the model's own.

    Args:
        device: A JAX device.
        dtype: What is computed in.
        heads: How many there are, and the width of one.
        grid: Its lengths are what it must work for.
    """
    if device.platform != "gpu" or dtype == "float32":
        return None
    lengths = (grid.lengths[0], grid.lengths[-1]) if grid.lengths else (grid.max_length,)
    works = all(works_on(device, cudnn_attention, dtype, (length, *heads)) for length in lengths)
    _log.info("attention on %s in %s: %s", device, dtype, "fused (cuDNN)" if works else "plain")
    return cudnn_attention if works else None


def works_on(device: Any, attend: Attend, dtype: str, shape: tuple[int, int, int]) -> bool:
    """Whether `attend` compiles, runs and gives plain attention's numbers there for two rows of (T, N, K)."""
    generator = np.random.default_rng(0)
    query, key, value = (jnp.asarray(generator.normal(size=(2, *shape)), dtype) for _ in range(3))
    bias = np.zeros((2, 1, 1, shape[0]), np.float32)
    bias[0, :, :, shape[0] // 2] = bias[1, :, :, shape[0] // 2 :] = MASKED_SCORE
    inputs = jax.device_put((query, key, value, jnp.asarray(bias)), device)
    try:
        found, expected = (np.asarray(jax.jit(one)(*inputs), np.float32) for one in (attend, xla_attention))
    except Exception as error:  # noqa: BLE001  # backends say in many ways that they cannot
        _log.warning("fused attention is not to be had on %s: %s", device, f"{error!r:.500}")
        return False
    return bool(np.abs(found - expected).max() <= TOLERANCE)
