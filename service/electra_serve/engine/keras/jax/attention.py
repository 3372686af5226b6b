"""Fused attention inside packed rows: cuDNN's on GPUs in 16 bits, if it proves right there, else Keras' own.

cuDNN never writes the (T, T) scores of each head to memory. Of what it offers for rows with several sequences, a mask
of (R, 1, T, T) is used, which all heads and layers share. JAX passes it on as a bias in the dtype of the query. The
public `jax.nn.dot_product_attention` has lengths only for rows of one sequence; the packed layout beneath it needs a
Hopper GPU and sequences without holes in their masks.

cuDNN supports some GPUs, types and head widths, and reports that when it compiles. So it is tried during warm-up, at
the shortest and the longest row, against plain attention on rows with several sequences, holes and padding.
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

TOLERANCE: Final = 0.05
"""Largest difference of one number from plain attention's; both are means of standard normal values. Either type rounds
to 0.01; a mask that is not heeded is 0.3 away."""

_log = logging.getLogger(__name__)


def masked_attention(
    query: Any, key: Any, value: Any, bias: Any | None, *, implementation: Literal["cudnn", "xla"]
) -> Any:
    """JAX' attention in one of its implementations: see `electra_serve.model.attention.Attend`."""
    mask = None if bias is None else bias > MASKED_SCORE  # (R, 1, T, T)
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)


CUDNN: Final[Attend] = partial(masked_attention, implementation="cudnn")
PLAIN: Final[Attend] = partial(masked_attention, implementation="xla")
"""Unfused, with its softmax in float32: the reference for fused attention."""


def fused_attention(device: Any, dtype: str) -> Attend | None:
    """The fused attention to try on a JAX device; None: there is none."""
    return CUDNN if device.platform == "gpu" and dtype != "float32" else None


def verified(
    attend: Attend, device: Any, dtype: str, heads: tuple[int, int], shapes: tuple[BatchShape, ...]
) -> Attend | None:
    """Returns `attend` if it is right on `device` for the shortest and the longest of `shapes`, else None.

    Args:
        attend: From `fused_attention`.
        device: A JAX device.
        dtype: What is computed in.
        heads: How many there are, and the width of one.
        shapes: The batch shapes to run.
    """
    lengths = {shape.length for shape in shapes}
    works = all(works_on(device, attend, dtype, (length, *heads)) for length in (min(lengths), max(lengths)))
    _log.info("attention on %s in %s: %s", device, dtype, "fused" if works else "plain")
    return attend if works else None


def works_on(device: Any, attend: Attend, dtype: str, shape: tuple[int, int, int]) -> bool:
    """Whether `attend` compiles, runs and gives plain attention's numbers there for packed rows of (T, N, K)."""
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
    """Sequence ids of the queries and keys of three rows of `length`: (3, T) each.

    The first row is full of sequences of growing length, the second has one and padding, the third one alone. Every
    third position is masked.

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
