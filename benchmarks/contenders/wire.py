"""The request and the answer that all services share: JSON as in this service's `POST /v1/encode`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from benchmarks.workload import Ids
from electra_serve.tensors import Batch, BatchShape, Encoding, ModelOutput, Output, Outputs, RowOutput

PATH = "/v1/encode"
READY_PATH = "/readyz"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: rows of ids, and what is wanted of them."""

    rows: list[Ids]
    outputs: Outputs


def decode(body: bytes) -> Asked:
    """Reads a request's JSON."""
    return read(orjson.loads(body))


def read(fields: dict[str, list[list[int]] | list[str]]) -> Asked:
    """Reads a request that has been parsed.

    Example:
        >>> read({"token_ids": [[1, 2]], "outputs": ["pooled_output"]}).rows
        [array([1, 2], dtype=int32)]
    """
    rows = [np.array(row, np.int32) for row in fields["token_ids"]]
    return Asked(rows, frozenset(Output(str(name)) for name in fields["outputs"]))


def pad(rows: Sequence[Ids]) -> Batch:
    """Rows as one batch, padded to the longest."""
    shape = BatchShape(len(rows), max(map(len, rows)))
    return Batch.pack([encoding(row) for row in rows], shape)


def encoding(row: Ids) -> Encoding:
    """A row as the service's own sequence."""
    return Encoding(row, np.zeros_like(row), np.ones_like(row), compute_length=len(row), real_tokens=len(row))


def cut(output: ModelOutput, rows: Sequence[Ids], outputs: Outputs) -> list[RowOutput]:
    """A batch's output, a row each, without the padding."""
    return [output.row(index, encoding(row), outputs) for index, row in enumerate(rows)]


def render(answers: Sequence[RowOutput], outputs: Outputs) -> bytes:
    """The answer's JSON."""
    fields = {output.value: [answer.get(output) for answer in answers] for output in outputs}
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
