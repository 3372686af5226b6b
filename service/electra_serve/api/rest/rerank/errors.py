"""Errors as clients of rerank APIs expect them."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Final

from electra_serve.api.rest.openai.errors import as_openai_error, error_members
from electra_serve.api.rest.problems import Failure, RenderedFailure

_TEI_TYPES: Final = {
    HTTPStatus.TOO_MANY_REQUESTS: "overloaded",
    HTTPStatus.INTERNAL_SERVER_ERROR: "backend",
    HTTPStatus.SERVICE_UNAVAILABLE: "unhealthy",
    HTTPStatus.GATEWAY_TIMEOUT: "overloaded",
}


def as_rerank_error(failure: Failure) -> RenderedFailure:
    """Renders a failure for Cohere's clients (`message`), Jina's (`detail`) and vLLM's (`error`).

    Example:
        >>> as_rerank_error(Failure(422, "Invalid input", "too long", "invalid_input", "r")).status
        400
    """
    body = {"message": failure.detail, "detail": failure.detail, "error": error_members(failure)}
    return replace(as_openai_error(failure), body=body)


def as_tei_error(failure: Failure) -> RenderedFailure:
    """Renders a failure for clients of Text Embeddings Inference.

    Example:
        >>> as_tei_error(Failure(503, "Model not ready", "it is loading", "model_not_ready", "r")).body
        {'error': 'it is loading', 'error_type': 'unhealthy'}
    """
    kind = _TEI_TYPES.get(HTTPStatus(failure.status), "validation")
    status = HTTPStatus.FAILED_DEPENDENCY if kind == "backend" else failure.status
    return RenderedFailure(status, {"error": failure.detail, "error_type": kind})
