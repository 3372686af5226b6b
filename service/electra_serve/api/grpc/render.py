"""Renders responses without copying their rows more than once.

protobuf grows and moves its buffer while it writes. 50 MB of `sequence_output` take 200 ms or more with the GIL held.
Here the memory of the rows is joined once, in the time of a copy. Concatenated encodings are one message, so protobuf
still writes everything but the rows. Only their tags and lengths are written by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from electra_serve.errors import PayloadTooLarge
from electra_serve.presets.heads import HeadKind
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import FLOAT32, from_floats
from electra_serve.runtime.work_thread import await_loop_turn
from electra_serve.serving.classification.find import Found
from electra_serve.serving.classification.results import Label, Span
from electra_serve.serving.classify import ClassifyResult
from electra_serve.serving.embed import EmbedResult
from electra_serve.serving.encode import EncodeResult
from electra_serve.serving.rerank import RerankResult
from electra_serve.tensors import Float32Array, Output

# Message in pieces: views of the result's arrays, which are copied by `join` only
Parts: TypeAlias = "list[bytes | memoryview]"

BYTES_PER_VALUE: Final = 8  # bytes of a number in a response: a float32 in the result, and one in the message
# Fields with a tensor for each sequence
POSITION_FIELDS: Final = {
    Output.SEQUENCE: pb.EncodeResponse.SEQUENCE_OUTPUT_FIELD_NUMBER,
    Output.TOKEN_LOGITS: pb.EncodeResponse.TOKEN_LOGITS_FIELD_NUMBER,
}
LENGTH_DELIMITED: Final = 2  # the wire type of bytes and of messages


def from_result(result: EncodeResult, request_id: str) -> Parts:
    """Returns an `EncodeResponse`."""
    rest = pb.EncodeResponse(
        request_id=request_id,
        model=result.model,
        pooled_output=_stacked(result, Output.POOLED),
        cls_output=_stacked(result, Output.CLS),
        mean_output=_stacked(result, Output.MEAN),
        embedding=_stacked(result, Output.EMBEDDING),
        logits=_stacked(result, Output.LOGITS),
        usage=pb.Usage(sequences=len(result.rows), tokens=result.tokens),
        truncated=result.truncated,
    )
    parts: Parts = [rest.SerializeToString()]
    for output, field in POSITION_FIELDS.items():
        if output in result.outputs:
            for row in result.rows:
                parts += _tensor(field, row.get(output))
    return parts


def from_classified(result: ClassifyResult, request_id: str) -> Parts:
    """Returns a `ClassifyResponse`, with a part for each sequence."""
    rest = pb.ClassifyResponse(
        request_id=request_id,
        model=result.model,
        head=result.head,
        usage=pb.Usage(sequences=result.sequences, tokens=result.tokens),
        truncated=result.truncated,
    )
    parts: Parts = [rest.SerializeToString()]
    for row in result.rows:
        data = _classification(row, result.head).SerializeToString()
        parts.append(tag(pb.ClassifyResponse.RESULTS_FIELD_NUMBER, len(data)) + data)
        await_loop_turn()
    return parts


def from_embedded(result: EmbedResult, request_id: str) -> Parts:
    """Returns an `EmbedResponse`."""
    rest = pb.EmbedResponse(
        request_id=request_id,
        model=result.model,
        usage=pb.Usage(sequences=len(result.vectors), tokens=result.tokens),
        truncated=result.truncated,
    )
    vectors = np.stack(result.vectors)  # (B, D)
    return [rest.SerializeToString(), *_tensor(pb.EmbedResponse.EMBEDDINGS_FIELD_NUMBER, vectors)]


def from_reranked(result: RerankResult, request_id: str) -> Parts:
    """Returns a `RerankResponse`."""
    response = pb.RerankResponse(
        request_id=request_id,
        model=result.model,
        results=[pb.RankedDocument(index=index, score=result.scores[index]) for index in result.order],
        usage=pb.Usage(sequences=len(result.scores), tokens=result.tokens),
        truncated=result.truncated,
    )
    return [response.SerializeToString()]


def _classification(row: Found, head: HeadKind) -> pb.Classification:
    spans = [_span(item) for item in row if isinstance(item, Span)]
    if head == "question_answering":
        return pb.Classification(answers=spans)
    labels = [pb.Label(label=item.label, score=item.score) for item in row if isinstance(item, Label)]
    return pb.Classification(labels=labels, spans=spans)


def _span(span: Span) -> pb.Span:
    return pb.Span(
        label=span.label,
        score=span.score,
        start=span.start,
        end=span.end,
        text=span.text,
        part=span.part,
        token_start=span.token_start,
        token_end=span.token_end,
    )


def in_stream(response: Parts, request_id: str) -> Parts:
    """Returns an `EncodeStreamResponse` that holds `response`."""
    head = pb.EncodeStreamResponse(request_id=request_id).SerializeToString()
    return [head + tag(pb.EncodeStreamResponse.RESPONSE_FIELD_NUMBER, size(response)), *response]


def join(parts: Parts, max_bytes: int) -> bytes:
    """Joins a message; raises `PayloadTooLarge` for more than `max_bytes`, with more advice than gRPC's own error."""
    total = size(parts)
    if total > max_bytes:
        raise PayloadTooLarge(
            f"a response must have at most {max_bytes} bytes; got {total}: request fewer sequences or outputs"
        )
    return b"".join(parts)


def size(parts: Sequence[bytes | memoryview]) -> int:
    """Returns the bytes of a message."""
    return sum(map(len, parts))


def _stacked(result: EncodeResult, output: Output) -> pb.Tensor | None:
    if output not in result.outputs:
        return None
    return from_floats(np.stack([row.get(output) for row in result.rows]))  # (B, H) or (B, L)


def _tensor(field: int, array: Float32Array) -> Parts:
    data = np.ascontiguousarray(array, FLOAT32).data.cast("B")
    head = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape).SerializeToString()
    head += tag(pb.Tensor.DATA_FIELD_NUMBER, len(data))
    return [tag(field, len(head) + len(data)) + head, data]


def tag(field: int, length: int) -> bytes:
    """Returns the head of a length-delimited field."""
    return _varint(field << 3 | LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
