"""Renders an `EmbedResult` as OpenAI does, in pieces that leave the event loop free."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

import numpy as np
import orjson

from electra_serve.api.rest.render import INLINE_FLOATS, RunOnThread, in_chunks
from electra_serve.api.rest.schemas import EncodingFormat
from electra_serve.serving.embed import EmbedResult


async def render_embeddings(
    result: EmbedResult, encoding_format: EncodingFormat, on_thread: RunOnThread
) -> list[bytes]:
    """Renders a response as chunks in order, on a thread if it is large."""
    return await in_chunks(embedding_pieces(result, encoding_format), on_thread, large=result.values > INLINE_FLOATS)


def embedding_pieces(result: EmbedResult, encoding_format: EncodingFormat) -> Iterator[bytes]:
    """Renders `object`, `data`, `model` and `usage`; a piece has one vector."""
    yield b'{"object":"list","data":['
    for index, vector in enumerate(result.vectors):
        yield (b"," if index else b"") + b'{"object":"embedding","index":%d,"embedding":' % index
        vector = np.ascontiguousarray(vector, "<f4")
        if encoding_format == "base64":
            yield b'"' + b64encode(vector.data) + b'"}'
        else:
            yield orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY) + b"}"
    usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    yield b'],"model":' + orjson.dumps(result.model) + b',"usage":' + orjson.dumps(usage) + b"}"
