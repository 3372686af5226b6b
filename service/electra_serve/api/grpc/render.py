"""An answer's bytes, put together in one go.

protobuf grows and moves its buffer while it writes: 50 MB of `sequence_output` take it 200 ms and more, with
the interpreter's lock held, so that nothing else runs. Here the rows' own memory is joined instead, once, in the
time of a copy. The bytes are protobuf's: what is written one after the other is one message, so protobuf still
writes everything but the rows' data, and only their tags and lengths (the Encoding chapter of its documentation) are
written by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from electra_serve.errors import PayloadTooLarge
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import FLOAT32, from_floats
from electra_serve.serving.service import EncodeResult
from electra_serve.tensors import Float32Array, Output

Parts: TypeAlias = "list[bytes | memoryview]"
"""A message in pieces. The views are of the result's own arrays: nothing is copied before `join`."""

LENGTH_DELIMITED: Final = 2
"""The wire type of bytes and of messages."""


def from_result(result: EncodeResult, request_id: str) -> Parts:
    """An `EncodeResponse`."""
    rest = pb.EncodeResponse(
        request_id=request_id,
        model=result.model,
        pooled_output=_stacked(result, Output.POOLED),
        cls_output=_stacked(result, Output.CLS),
        mean_output=_stacked(result, Output.MEAN),
        usage=pb.Usage(sequences=len(result.rows), tokens=result.tokens),
        truncated=result.truncated,
    )
    parts: Parts = [rest.SerializeToString()]
    if Output.SEQUENCE in result.outputs:
        for row in result.rows:
            parts += _tensor(pb.EncodeResponse.SEQUENCE_OUTPUT_FIELD_NUMBER, row.get(Output.SEQUENCE))
    return parts


def in_stream(response: Parts, request_id: str) -> Parts:
    """An `EncodeStreamResponse` that holds `response`."""
    head = pb.EncodeStreamResponse(request_id=request_id).SerializeToString()
    return [head + _tag(pb.EncodeStreamResponse.RESPONSE_FIELD_NUMBER, size(response)), *response]


def join(parts: Parts, max_bytes: int) -> bytes:
    """The message in one piece.

    Raises:
        PayloadTooLarge: It has more than `max_bytes`, which gRPC would refuse without a word of advice.
    """
    total = size(parts)
    if total > max_bytes:
        raise PayloadTooLarge(
            f"an answer may be at most {max_bytes} bytes; this one has {total}: ask for fewer sequences or outputs"
        )
    return b"".join(parts)


def size(parts: Sequence[bytes | memoryview]) -> int:
    """Returns the bytes of a message."""
    return sum(map(len, parts))


def _stacked(result: EncodeResult, output: Output) -> pb.Tensor | None:
    if output not in result.outputs:
        return None
    return from_floats(np.stack([row.get(output) for row in result.rows]))  # (B, H)


def _tensor(field: int, array: Float32Array) -> Parts:
    data = np.ascontiguousarray(array, FLOAT32).data.cast("B")
    head = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape).SerializeToString()
    head += _tag(pb.Tensor.DATA_FIELD_NUMBER, len(data))
    return [_tag(field, len(head) + len(data)) + head, data]


def _tag(field: int, length: int) -> bytes:
    return _varint(field << 3 | LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
