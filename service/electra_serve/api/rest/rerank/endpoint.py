"""Endpoints of the rerank APIs, one for each path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Protocol

from starlette.types import Scope

from electra_serve.api.rest.body import MAX_KEYS
from electra_serve.api.rest.endpoint import JsonEndpoint
from electra_serve.api.rest.error_formats import use_error_format
from electra_serve.api.rest.openai.endpoint import TRUNCATED_HEADER
from electra_serve.api.rest.render import RunOnThread
from electra_serve.api.rest.rerank.decode import DecodedRerank, RerankDecoder, is_tei
from electra_serve.api.rest.rerank.render import render_rerank
from electra_serve.api.rest.tei.errors import as_tei_error
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.rerank import RerankRequest, RerankResult
from electra_serve.serving.transit_budget import Reservation

MARKS_PER_DOCUMENT: Final = 16
"""Braces and colons of a document that is an object: `text`, and members that are ignored."""


class RerankEndpoint(JsonEndpoint[DecodedRerank, RerankResult]):
    """Endpoint of `POST /v1/rerank`, as Cohere, Jina and vLLM have it."""

    route = "POST /v1/rerank"
    api_version: ClassVar[str] = "1"  # of Cohere

    @property
    def max_members(self) -> int:
        """Braces and colons of a body."""
        return MAX_KEYS + MARKS_PER_DOCUMENT * self._max_sequences

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> DecodedRerank:
        return self._decoder(context, reservation).rerank(payload)

    def _decoder(self, context: RequestContext, reservation: Reservation) -> RerankDecoder:
        return RerankDecoder(context, self._max_sequences, self._settings.max_answer_bytes, reservation)

    def _request_of(self, decoded: DecodedRerank) -> RerankRequest:
        return decoded.request

    async def _compute(self, decoded: DecodedRerank) -> RerankResult:
        return await self._service.rerank(decoded.request)

    def _headers(self, result: RerankResult) -> Mapping[str, str]:
        return {TRUNCATED_HEADER: str(sum(result.truncated))}

    async def _render(self, decoded: DecodedRerank, result: RerankResult, on_thread: RunOnThread) -> Sequence[bytes]:
        return await render_rerank(decoded, result, self.api_version, on_thread)


class RerankV2Endpoint(RerankEndpoint):
    """Endpoint of `POST /v2/rerank`, Cohere's second version."""

    route = "POST /v2/rerank"
    api_version = "2"


class BareRerankEndpoint(RerankEndpoint):
    """Endpoint of `POST /rerank`, as vLLM has it."""

    route = "POST /rerank"


class TeiRerankEndpoint(BareRerankEndpoint):
    """Endpoint of `POST /rerank` that serves a body with `texts` as Text Embeddings Inference does."""

    def __init__(self, *args: Any, tei_model: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self._tei_model = tei_model  # serves bodies with `texts` that name no model

    def _choose_errors(self, payload: object, scope: Scope) -> None:
        if is_tei(payload):
            use_error_format(scope, partial(as_tei_error, member="texts"))

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> DecodedRerank:
        if is_tei(payload):
            return self._decoder(context, reservation).tei(payload, self._tei_model or None)
        return super()._convert(payload, context, reservation)


class ScoreEndpoint(RerankEndpoint):
    """Endpoint of `POST /score`, as vLLM has it."""

    route = "POST /score"

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> DecodedRerank:
        return self._decoder(context, reservation).score(payload)


class BuildRerank(Protocol):
    """Builds an endpoint for the application."""

    def __call__(self, kind: Callable[..., RerankEndpoint], /) -> RerankEndpoint:
        """Returns an endpoint of a class."""
