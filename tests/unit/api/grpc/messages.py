"""Messages, briefly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers


def tensor(values: Sequence[int] | Sequence[Sequence[int]]) -> pb.Tensor:
    """An int32 tensor."""
    return from_integers(np.array(values, np.int32))


def tokens(*rows: Sequence[int]) -> pb.TokenInput:
    """Ids alone, a tensor for each row."""
    return pb.TokenInput(token_ids=[tensor(row) for row in rows])


def request(
    *rows: Sequence[int], request_id: str = "", outputs: Sequence[pb.Output.ValueType] = ()
) -> pb.EncodeRequest:
    """A request for `rows`."""
    return pb.EncodeRequest(request_id=request_id, tokens=tokens(*rows), outputs=outputs)


def item(request_id: str, *rows: Sequence[int]) -> pb.EncodeStreamRequest:
    """A request of a stream."""
    return pb.EncodeStreamRequest(request=request(*rows, request_id=request_id))


UNKNOWN_FIELD = b"\xfa\x01\x02hi"
"""Field 31 with two bytes, which no message here has."""
