"""Parses requests and renders responses: small ones on the event loop, others on the decoding thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from google.protobuf.message import Message

from electra_serve.api.grpc import decode
from electra_serve.api.grpc.parsing import SMALL_MESSAGE_FIELDS, cut_names, has_more_fields, parse
from electra_serve.api.grpc.render import (
    Parts,
    from_classified,
    from_embedded,
    from_reranked,
    from_result,
    join,
    size,
)
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.classify import ClassifyResult
from electra_serve.serving.embed import EmbedResult
from electra_serve.serving.encode import EncodeResult
from electra_serve.serving.rerank import RerankResult
from electra_serve.settings.schema import ApiSettings
from electra_serve.tensors import TextInput, TokenInput

M = TypeVar("M", bound=Message)

# For each of ids, segments and mask: a tensor, its type, its bytes, and dimensions, written one by one or packed
FIELDS_PER_SEQUENCE: Final = 3 * 8
INLINE_BYTES: Final = 4096  # messages up to this size are parsed on the event loop, whatever they hold
MAX_INLINE_BYTES: Final = 65_536
# Messages up to `MAX_INLINE_BYTES` too, with no more fields than these, which are counted in half a millisecond
MAX_INLINE_FIELDS: Final = 512
MAX_INLINE_TENSORS: Final = 64
INLINE_FLOATS: Final = 65_536
INLINE_ITEMS: Final = 1024
"""Labels and spans that are rendered in about a millisecond."""
INLINE_RESPONSE_BYTES: Final = 2**20
DEFAULT_APIS: Final = ApiSettings()


class Codec:
    """Converts between messages and the service's types.

    Sizes are those of the received bytes: protobuf would serialize a message to count them.
    """

    def __init__(
        self,
        thread: WorkThread,
        *,
        max_sequences: int,
        max_response_bytes: int,
        max_inputs: int = DEFAULT_APIS.max_inputs,
        max_documents: int = DEFAULT_APIS.max_documents,
    ) -> None:
        self._thread = thread
        self._max_sequences = max_sequences
        self._max_inputs = max_inputs
        self._max_documents = max_documents
        self._max_response_bytes = max_response_bytes

    async def parse(self, message_type: type[M], data: bytes, client: str, *, strict: bool = True) -> M:
        """Parses a message that may hold sequences; raises what `parsing.parse` raises."""
        max_fields = self._fields_per_message(message_type) + SMALL_MESSAGE_FIELDS
        work = partial(parse, message_type, data, max_fields=max_fields, strict=strict)
        if is_simple(message_type, data):
            return work()
        return await self._thread.run(client, partial(_parse_and_cut, work))

    async def to_input(self, message: decode.AnyRequest, size: int, client: str) -> TokenInput | TextInput:
        """Returns the sequences of a request of `size` bytes; raises what `decode.to_input` raises."""
        most = self._max_inputs if isinstance(message, pb.EmbedRequest) else self._max_sequences
        work = partial(decode.to_input, message, most)
        if _tensors(message) <= MAX_INLINE_TENSORS and size <= MAX_INLINE_BYTES:
            return work()
        return await self._thread.run(client, work)

    async def to_documents(self, message: pb.RerankRequest, size: int, client: str) -> tuple[str, tuple[str, ...]]:
        """Returns the query and the documents of a request of `size` bytes; raises as `decode.to_documents`."""
        work = partial(decode.to_documents, message, self._max_documents)
        if size <= MAX_INLINE_BYTES:
            return work()
        return await self._thread.run(client, work)

    async def render(self, result: EncodeResult, request_id: str, client: str) -> Parts:
        """Returns an `EncodeResponse`."""
        work = partial(from_result, result, request_id)
        if result.values <= INLINE_FLOATS:
            return work()
        return await self._thread.run(client, work)

    async def render_classified(self, result: ClassifyResult, request_id: str, client: str) -> Parts:
        """Returns a `ClassifyResponse`."""
        work = partial(from_classified, result, request_id)
        if result.items <= INLINE_ITEMS:
            return work()
        return await self._thread.run(client, work)

    async def render_embedded(self, result: EmbedResult, request_id: str, client: str) -> Parts:
        """Returns an `EmbedResponse`."""
        work = partial(from_embedded, result, request_id)
        if result.values <= INLINE_FLOATS:
            return work()
        return await self._thread.run(client, work)

    async def render_reranked(self, result: RerankResult, request_id: str, client: str) -> Parts:
        """Returns a `RerankResponse`."""
        work = partial(from_reranked, result, request_id)
        if len(result.order) <= INLINE_ITEMS:
            return work()
        return await self._thread.run(client, work)

    def _fields_per_message(self, message_type: type[Message]) -> int:
        """Returns the most fields of a message of that type, apart from those of any message."""
        if message_type is pb.RerankRequest:
            return self._max_documents
        sequences = self._max_inputs if message_type is pb.EmbedRequest else self._max_sequences
        return FIELDS_PER_SEQUENCE * sequences

    async def join(self, parts: Parts, client: str) -> bytes:
        """Returns a message in one piece; raises `PayloadTooLarge` if it is larger than a response may be."""
        work = partial(join, parts, self._max_response_bytes)
        if size(parts) <= INLINE_RESPONSE_BYTES:
            return work()
        return await self._thread.run(client, work)


def is_simple(message_type: type[Message], data: bytes) -> bool:
    """Returns True for a message that is parsed within a millisecond."""
    if len(data) <= INLINE_BYTES:
        return True
    return len(data) <= MAX_INLINE_BYTES and not has_more_fields(message_type, data, MAX_INLINE_FIELDS)


def _tensors(message: decode.AnyRequest) -> int:
    """Returns the number of tensors and texts."""
    tokens = message.tokens
    return len(tokens.token_ids) + len(tokens.segment_ids) + len(tokens.padding_mask) + len(message.text.texts)


def _parse_and_cut(parsed: Callable[[], M]) -> M:
    """No closure: the traceback of an error would keep it, and the message's bytes with it."""
    return cut_names(parsed())
