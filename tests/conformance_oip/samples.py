"""Inputs of the tests, and the outputs that `/v1/encode` computes for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.conformance_clients.served import Served

ENCODER: Final = "encoder"
ALIAS: Final = "bert-base"
CLASSIFIER: Final = "classifier"
ABSENT: Final = "absent"
TOLERANCE: Final = 1e-5

IDS: Final = ((2, 75, 103, 88, 3), (2, 9, 3), (2, 120, 3, 44, 3))
"""Small enough for every integer type."""
SEGMENTS: Final = ((0, 0, 0, 0, 0), (0, 0, 0), (0, 0, 0, 1, 1))
TEXTS: Final = ("Alice fell down a well.", "Café Zoë — naïve façade; 日本語, 😀!", "a")
PAIRS: Final = (("Who fell down a hole?", "Alice fell."), ("Who made tarts?", "The Queen of Hearts made some tarts."))
LONG: Final = "The Queen of Hearts made some tarts, all on a summer day. " * 60
OUTPUTS: Final = ("sequence_output", "pooled_output", "cls_output", "mean_output", "embedding")

Array = NDArray[Any]


def rectangle(rows: Sequence[Sequence[int]], dtype: Any = np.int64) -> Array:
    """Pads rows with zeros: (B, S)."""
    longest = max(map(len, rows))
    return np.array([[*row, *[0] * (longest - len(row))] for row in rows], dtype)


def mask(rows: Sequence[Sequence[int]], dtype: Any = np.int64) -> Array:
    """Marks the elements of each row: (B, S)."""
    return rectangle([[1] * len(row) for row in rows], dtype)


def texts(of: Sequence[Any]) -> Array:
    """Texts as clients take them: bytes in an array of objects, of one or two axes."""
    encoded = [[text.encode() for text in row] if isinstance(row, tuple) else row.encode() for row in of]
    return np.array(encoded, np.object_)


def expected(served: Served, output: str, *, model: str = ENCODER, **input_: object) -> Array:
    """Returns an output of `/v1/encode`, (B, …); positions after the end of a sequence are zeros."""
    rows = _encoded(served, output, json.dumps({"model": model, "outputs": [output], **input_}))
    if rows[0].ndim == 1:
        return np.stack(rows)
    padded = np.zeros((len(rows), max(map(len, rows)), rows[0].shape[1]), np.float32)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded


@cache
def _encoded(served: Served, output: str, body: str) -> list[Array]:
    response = served.post("/v1/encode", json.loads(body))
    assert response.status_code == 200, response.text
    return [np.asarray(row, np.float32) for row in response.json()[output]]


def check(found: Array | None, wanted: Array) -> None:
    """Asserts shape, datatype and numbers."""
    assert found is not None
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


def native_message(served: Served, **body: object) -> str:
    """Returns the message with which `/v1/encode` rejects a request."""
    response = served.post("/v1/encode", body)
    assert response.status_code >= 400
    detail: str = response.json()["detail"]
    return detail
