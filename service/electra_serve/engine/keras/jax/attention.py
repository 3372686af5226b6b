"""Fused attention for packed rows: cuDNN on GPUs in 16 bits, if it is verified there, else Keras' own.

Support depends on GPU, dtype and head width and shows only at compilation. Warm-up thus compares cuDNN with plain
attention on the shortest and the longest row.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final, Literal

import jax
import jax.numpy as jnp
import numpy as np

from electra_serve.model.attention import MASKED_SCORE, Attend, sequence_bias
from electra_serve.tensors import BatchShape, Int32Array

TOLERANCE: Final = 0.05  # largest difference from plain attention; rounding gives 0.01, an ignored mask 0.3

_log = logging.getLogger(__name__)


def masked_attention(
    query: Any, key: Any, value: Any, bias: Any | None, *, implementation: Literal["cudnn", "xla"]
) -> Any:
    """Runs one of JAX' attention implementations; see `electra_serve.model.attention.Attend`."""
    mask = None if bias is None else bias > MASKED_SCORE  # (R, 1, T, T)
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)


CUDNN: Final[Attend] = partial(masked_attention, implementation="cudnn")
PLAIN: Final[Attend] = partial(masked_attention, implementation="xla")  # unfused, with float32 softmax: the reference


def fused_attention(device: Any, dtype: str) -> Attend | None:
    """Returns the fused attention to try on a JAX device, or None."""
    return CUDNN if device.platform == "gpu" and dtype != "float32" else None


def verified(
    attend: Attend, device: Any, dtype: str, heads: tuple[int, int], shapes: tuple[BatchShape, ...]
) -> Attend | None:
    """Returns `attend` if it is correct on `device` for the shortest and longest shape and (number, width) of heads."""
    lengths = [shape.length for shape in shapes]
    works = all(works_on(device, attend, dtype, (length, *heads)) for length in {min(lengths), max(lengths)})
    _log.info("attention on %s in %s: %s", device, dtype, "fused" if works else "plain")
    return attend if works else None


def works_on(device: Any, attend: Attend, dtype: str, shape: tuple[int, int, int]) -> bool:
    """Returns True if `attend` runs and matches plain attention for packed rows of `shape`, (T, N, K)."""
    generator = np.random.default_rng(0)
    query_ids, key_ids = packed_ids(shape[0])
    rows = len(query_ids)
    query, key, value = (jnp.asarray(generator.normal(size=(rows, *shape)), dtype) for _ in range(3))
    inputs = jax.device_put((query, key, value, sequence_bias(query_ids, key_ids)), device)
    try:
        found, expected = (np.asarray(jax.jit(one)(*inputs), np.float32) for one in (attend, PLAIN))
    except Exception as error:  # noqa: BLE001  # backends say in many ways that they cannot
        _log.warning("fused attention is not available on %s: %s", device, f"{error!r:.500}")
        return False
    return bool(np.abs(found - expected).max() <= TOLERANCE)


def packed_ids(length: int) -> tuple[Int32Array, Int32Array]:
    """Returns sequence ids of queries and keys for three rows of `length`, (3, T) each; every third key is masked.

    Example:
        >>> queries, keys = packed_ids(8)
        >>> queries.tolist()
        [[1, 2, 2, 3, 3, 3, 3, 4], [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]]
        >>> keys.tolist()
        [[1, 2, 0, 3, 3, 0, 3, 4], [1, 1, 0, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 0, 1, 1]]
    """
    positions = np.arange(length, dtype=np.int32)
    growing = np.log2(positions + 1).astype(np.int32) + 1
    query_ids = np.stack((growing, (positions < length // 2).astype(np.int32), np.ones_like(positions)))
    return query_ids, query_ids * (positions % 3 != 2).astype(np.int32)
