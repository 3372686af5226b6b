"""Request and response that all services share: JSON as in this service's `POST /v1/encode`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from benchmarks.encoders.base import PaddingEncoder, pad
from benchmarks.workload import Ids, encoding
from electra_serve.tensors import Output, Outputs, RowOutput

PATH = "/v1/encode"
READY_PATH = "/readyz"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: rows of ids and requested outputs."""

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


def encode(encoder: PaddingEncoder, rows: Sequence[Ids], outputs: Outputs) -> list[RowOutput]:
    """Computes one batch that is padded to the longest row; returns the outputs of each row."""
    encodings = [encoding(row) for row in rows]
    batch = pad(encodings)
    found = encoder.run_one(batch, outputs)
    return [found.extract(place, row, outputs) for place, row in zip(batch.placements, encodings, strict=True)]


def render(answers: Sequence[RowOutput], outputs: Outputs) -> bytes:
    """Writes the response's JSON."""
    fields = {output.value: [answer.get(output) for answer in answers] for output in outputs}
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
