"""Adds the routes of OpenAI's API to the application."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI

from electra_serve.api.rest.error_formats import add_error_formats
from electra_serve.api.rest.openai.endpoint import EmbeddingsEndpoint
from electra_serve.api.rest.openai.errors import as_openai_error
from electra_serve.api.rest.openai.schemas import EmbeddingsAnswer, EmbeddingsBody, OpenAIErrorAnswer
from electra_serve.api.rest.openapi import compute_request, json_response_of

PATH: Final = "/v1/embeddings"
SCHEMAS: Final = (EmbeddingsBody, EmbeddingsAnswer, OpenAIErrorAnswer)
_REQUESTS: Final = {
    "texts": {"summary": "Two texts", "value": {"model": "electra_demo", "input": ["a text", "another"]}},
    "bytes": {"summary": "Vectors as bytes", "value": {"input": "a text", "encoding_format": "base64"}},
}


def add_openai(app: FastAPI, endpoint: EmbeddingsEndpoint) -> None:
    """Adds `POST /v1/embeddings`, whose errors have OpenAI's form."""
    add_error_formats(app, {PATH: as_openai_error})
    app.router.add_api_route(
        PATH,
        endpoint.serve,
        methods=["POST"],
        tags=["OpenAI"],
        name="embeddings",
        summary="Embed texts, as OpenAI does",
        description="Unit vectors of texts. Long texts are truncated; `x-truncated-inputs` has their number.",
        response_model=None,
        responses=json_response_of("The vectors.", EmbeddingsAnswer)
        | {"default": json_response_of("A failed request.", OpenAIErrorAnswer)[200]},
        openapi_extra=compute_request(EmbeddingsBody, _REQUESTS),
    )
