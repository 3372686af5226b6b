"""Adds the rerank routes to the application."""

from __future__ import annotations

from functools import partial
from typing import Final

from fastapi import FastAPI

from electra_serve.api.rest.body import JSON_MEDIA_TYPE
from electra_serve.api.rest.error_formats import add_error_formats
from electra_serve.api.rest.openapi import (
    JsonObject,
    Responses,
    compute_request,
    json_response_of,
    schema_of,
)
from electra_serve.api.rest.rerank.endpoint import (
    BareRerankEndpoint,
    BuildRerank,
    RerankEndpoint,
    RerankV2Endpoint,
    ScoreEndpoint,
    TeiRerankEndpoint,
)
from electra_serve.api.rest.rerank.errors import as_rerank_error
from electra_serve.api.rest.rerank.schemas import (
    RerankAnswer,
    RerankBody,
    RerankErrorAnswer,
    ScoreAnswer,
    ScoreBody,
    TeiRerankBody,
    TeiRerankItem,
)
from electra_serve.api.rest.tei.schemas import TeiErrorAnswer

SCHEMAS: Final = (
    RerankBody,
    RerankAnswer,
    RerankErrorAnswer,
    ScoreBody,
    ScoreAnswer,
    TeiErrorAnswer,
    TeiRerankBody,
    TeiRerankItem,
)
_DESCRIPTION: Final = (
    "Scores documents for a query with a cross-encoder, a model whose head has one label. Long documents are "
    "truncated; `x-truncated-inputs` has their number."
)
_REQUEST: Final = {"query": "Who was late?", "documents": ["The Rabbit was late.", "Alice fell asleep."]}
_REQUESTS: Final = {
    "documents": {"summary": "Two documents", "value": _REQUEST},
    "best": {
        "summary": "The best document, with its text",
        "value": {"query": "Who?", "documents": [{"text": "a"}, {"text": "b"}], "top_n": 1, "return_documents": True},
    },
}
_TEI_REQUESTS: Final = {"texts": {"summary": "A bare list", "value": {"query": "Who?", "texts": ["a", "b"]}}}
_SCORE_REQUESTS: Final = {
    "texts": {"summary": "One text and two others", "value": {"text_1": "Who?", "text_2": ["a", "b"]}}
}


def add_rerank(app: FastAPI, build: BuildRerank, *, tei: bool, tei_model: str) -> RerankEndpoint:
    """Adds the routes, and returns the endpoint of `POST /rerank`.

    With `tei`, that one also takes the requests of Text Embeddings Inference.
    """
    _add(app, build(RerankEndpoint), "rerank")
    _add(app, build(RerankV2Endpoint), "rerank_v2")
    bare = build(partial(TeiRerankEndpoint, tei_model=tei_model) if tei else BareRerankEndpoint)
    _add(app, bare, "rerank_bare", tei=tei)
    _add(app, build(ScoreEndpoint), "score")
    return bare


def _add(app: FastAPI, endpoint: RerankEndpoint, name: str, *, tei: bool = False) -> None:
    path = endpoint.route.removeprefix("POST ")
    score = isinstance(endpoint, ScoreEndpoint)
    add_error_formats(app, {path: as_rerank_error})
    request = compute_request(ScoreBody, _SCORE_REQUESTS) if score else compute_request(RerankBody, _REQUESTS)
    responses = json_response_of("The scores.", ScoreAnswer if score else RerankAnswer)
    responses |= {"default": json_response_of("A failed request.", RerankErrorAnswer)[200]}
    if tei:
        _document_tei(request, responses)
    app.router.add_api_route(
        path,
        endpoint.serve,
        methods=["POST"],
        tags=["rerank"],
        name=name,
        summary="Score pairs, as vLLM does" if score else "Rerank documents, as Cohere, Jina and vLLM do",
        description=_DESCRIPTION,
        response_model=None,
        responses=responses,
        openapi_extra=request,
    )


def _document_tei(request: JsonObject, responses: Responses) -> None:
    """Adds the bodies of the other dialect."""
    body = request["requestBody"]["content"][JSON_MEDIA_TYPE]
    body["schema"] = {"anyOf": [body["schema"], schema_of(TeiRerankBody)]}
    body["examples"] = {**body["examples"], **_TEI_REQUESTS}
    answer = responses[200]["content"][JSON_MEDIA_TYPE]
    answer["schema"] = {"anyOf": [answer["schema"], {"type": "array", "items": schema_of(TeiRerankItem)}]}
    failure = responses["default"]["content"][JSON_MEDIA_TYPE]
    failure["schema"] = {"anyOf": [failure["schema"], schema_of(TeiErrorAnswer)]}
