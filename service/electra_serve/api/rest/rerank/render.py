"""Renders a `RerankResult` for each dialect, in pieces that leave the event loop free."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

import orjson

from electra_serve.api.rest.render import RunOnThread, in_chunks, listed
from electra_serve.api.rest.rerank.decode import DecodedRerank
from electra_serve.serving.rerank import RerankRequest, RerankResult

INLINE_VALUES: Final = 2048
"""Numbers of a response that is written on the event loop, in a millisecond."""


async def render_rerank(
    decoded: DecodedRerank, result: RerankResult, api_version: str, on_thread: RunOnThread
) -> list[bytes]:
    """Renders a response as chunks in order, on a thread if it is large."""
    pieces = rerank_pieces(decoded, result, api_version)
    return await in_chunks(pieces, on_thread, large=decoded.request.values > INLINE_VALUES)


def rerank_pieces(decoded: DecodedRerank, result: RerankResult, api_version: str) -> Iterator[bytes]:
    """Renders a response; a piece has one document."""
    request = decoded.request
    if decoded.dialect == "tei":
        yield from listed((_tei_item(request, result, index) for index in result.order), at_once=1)
        return
    yield b'{"id":' + _dumps(request.context.request_id) + b',"model":' + _dumps(result.model)
    if decoded.dialect == "score":
        yield b',"object":"list","created":%d,"data":' % time.time()
        yield from listed((_score_item(result, index) for index in range(len(result.scores))), at_once=1)
    else:
        yield b',"results":'
        yield from listed((_rerank_item(request, result, index) for index in result.order), at_once=1)
        meta = {"api_version": {"version": api_version}, "billed_units": {"search_units": 1}}
        yield b',"meta":' + _dumps(meta)
    usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    yield b',"usage":' + _dumps(usage) + b"}"


def _rerank_item(request: RerankRequest, result: RerankResult, index: int) -> Mapping[str, object]:
    item: dict[str, object] = {"index": index, "relevance_score": result.scores[index]}
    if request.returns_documents:
        item["document"] = {"text": request.documents[index]}
    return item


def _tei_item(request: RerankRequest, result: RerankResult, index: int) -> Mapping[str, object]:
    item: dict[str, object] = {"index": index, "score": result.scores[index]}
    if request.returns_documents:
        item["text"] = request.documents[index]
    return item


def _score_item(result: RerankResult, index: int) -> Mapping[str, object]:
    return {"index": index, "object": "score", "score": result.scores[index]}


def _dumps(content: object) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)  # a float32 as its shortest decimal
