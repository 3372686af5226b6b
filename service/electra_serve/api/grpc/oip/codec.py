"""Parses inference requests and renders their responses: large ones on the decoding thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from electra_serve.api.grpc.codec import (
    FIELDS_PER_SEQUENCE,
    INLINE_BYTES,
    INLINE_FLOATS,
    MAX_INLINE_BYTES,
    is_simple,
)
from electra_serve.api.grpc.oip import decode
from electra_serve.api.grpc.oip.render import from_tensors
from electra_serve.api.grpc.parsing import SMALL_MESSAGE_FIELDS, cut_names, parse
from electra_serve.api.grpc.render import Parts
from electra_serve.api.oip.decode import Decoded, InferRequest
from electra_serve.api.oip.outputs import rectangle_values, to_bytes
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.encode import EncodeResult

PACKED_PER_FIELD: Final = 256
"""Bytes of packed numbers that count as a field. With `FIELDS_PER_SEQUENCE`, a sequence has 6 KB. 512 ids, segments
and mask take at most 4.5 KB."""


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """A parsed request."""

    message: pb.ModelInferRequest
    id: str  # the client's, any text
    raw: bool
    size: int  # bytes; protobuf would serialize the message to count them


class InferCodec:
    """Converts between messages of `ModelInfer` and the service's types."""

    def __init__(self, thread: WorkThread, *, max_sequences: int) -> None:
        self._thread = thread
        self._max_sequences = max_sequences

    async def parse(self, data: bytes, client: str) -> Received:
        """Parses a request and ignores unknown fields; raises what `parsing.parse` raises."""
        max_fields = FIELDS_PER_SEQUENCE * self._max_sequences + SMALL_MESSAGE_FIELDS
        work = partial(_parse, data, max_fields)
        if is_simple(pb.ModelInferRequest, data):
            return work()
        return await self._thread.run(client, work)

    async def decode(self, received: Received, model: str, client: str) -> InferRequest:
        """Reads the tensors of a request; raises what `decode.to_infer` raises."""
        work = partial(decode.to_infer, received.message, model, self._max_sequences)
        if received.size <= (MAX_INLINE_BYTES if received.raw else INLINE_BYTES):
            return work()
        return await self._thread.run(client, work)

    async def render(
        self, result: EncodeResult, decoded: Decoded, received: Received, parameters: Mapping[str, bool], client: str
    ) -> Parts:
        """Returns a `ModelInferResponse`."""
        work = partial(_render, result, decoded.outputs, received.id, parameters, raw=received.raw)
        if rectangle_values(result) <= INLINE_FLOATS and len(received.id) <= MAX_INLINE_BYTES:
            return work()
        return await self._thread.run(client, work)


def _parse(data: bytes, max_fields: int) -> Received:
    message = parse(pb.ModelInferRequest, data, max_fields=max_fields, packed_per_field=PACKED_PER_FIELD, strict=False)
    if len(data) > INLINE_BYTES:  # names of others are short
        cut_names(message)
    return Received(message, message.id, decode.is_raw(message), len(data))


def _render(
    result: EncodeResult, names: tuple[str, ...], request_id: str, parameters: Mapping[str, bool], *, raw: bool
) -> Parts:
    return from_tensors(result.model, request_id, to_bytes(result, names), raw=raw, parameters=parameters)
