"""Errors as clients of rerank APIs expect them."""

from __future__ import annotations

from dataclasses import replace

from electra_serve.api.rest.openai.errors import as_openai_error, error_members
from electra_serve.api.rest.problems import Failure, RenderedFailure


def as_rerank_error(failure: Failure) -> RenderedFailure:
    """Renders a failure for Cohere's clients (`message`), Jina's (`detail`) and vLLM's (`error`).

    Example:
        >>> as_rerank_error(Failure(422, "Invalid input", "too long", "invalid_input", "r")).status
        400
    """
    body = {"message": failure.detail, "detail": failure.detail, "error": error_members(failure)}
    return replace(as_openai_error(failure), body=body)
