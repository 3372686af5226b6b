"""Requests and responses of the running service, as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import httpx
import numpy as np

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from electra_serve.proto.tensors import from_integers, to_floats
from electra_serve.tensors import Float32Array

Rows: TypeAlias = Sequence[Sequence[int]]
EncodedRow: TypeAlias = Mapping[str, Float32Array]
"""One sequence's outputs by their names."""

OUTPUTS = {
    "sequence_output": pb.OUTPUT_SEQUENCE,
    "pooled_output": pb.OUTPUT_POOLED,
    "cls_output": pb.OUTPUT_CLS,
    "mean_output": pb.OUTPUT_MEAN,
}


def random_rows(lengths: Sequence[int], seed: int) -> list[list[int]]:
    """Sequences of these lengths that `electra_demo` takes."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 8000, length).tolist() for length in lengths]


def over_rest(client: httpx.Client, **body: object) -> list[EncodedRow]:
    """Encodes over REST, all outputs."""
    response = client.post("/v1/encode", json={"outputs": list(OUTPUTS), **body})
    assert response.status_code == 200, response.text
    return rows_of(response.json())


def rows_of(content: Mapping[str, Any]) -> list[EncodedRow]:
    """Returns the rows of a REST response."""
    return [
        {name: np.array(content[name][row], np.float32) for name in OUTPUTS if name in content}
        for row in range(content["usage"]["sequences"])
    ]


def over_grpc(stub: EncoderServiceStub, token_ids: Rows, **fields: Rows) -> list[EncodedRow]:
    """Encodes ids over gRPC, all outputs."""
    tokens = pb.TokenInput(token_ids=_tensors(token_ids), **{name: _tensors(rows) for name, rows in fields.items()})
    content = stub.Encode(pb.EncodeRequest(tokens=tokens, outputs=OUTPUTS.values()), timeout=60)
    pooled, cls, mean = map(to_floats, (content.pooled_output, content.cls_output, content.mean_output))
    return [
        {
            "sequence_output": to_floats(content.sequence_output[row]),
            "pooled_output": pooled[row],
            "cls_output": cls[row],
            "mean_output": mean[row],
        }
        for row in range(content.usage.sequences)
    ]


def assert_close(got: Sequence[EncodedRow], expected: Sequence[EncodedRow], tolerance: float) -> None:
    """Fails unless all rows and outputs are there and no number is off by more than `tolerance`."""
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, numbers in theirs.items():
            assert ours[name].shape == numbers.shape
            np.testing.assert_allclose(ours[name], numbers, rtol=0, atol=tolerance, err_msg=name)


def _tensors(rows: Rows) -> list[pb.Tensor]:
    return [from_integers(np.array(row, np.int32)) for row in rows]
