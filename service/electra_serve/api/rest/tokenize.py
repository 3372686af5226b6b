"""`POST /v1/tokenize`."""

from __future__ import annotations

from collections.abc import Sequence

from electra_serve.api.rest.decode_tokenize import decode_tokenize
from electra_serve.api.rest.endpoint import JsonEndpoint
from electra_serve.api.rest.render import RunOnThread
from electra_serve.api.rest.render_tokenize import render_tokenize
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.tokens import TokenizeRequest, TokenizeResult
from electra_serve.serving.transit_budget import Reservation


class TokenizeEndpoint(JsonEndpoint[TokenizeRequest, TokenizeResult]):
    """Endpoint of `POST /v1/tokenize`."""

    route = "POST /v1/tokenize"

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> TokenizeRequest:
        return decode_tokenize(
            payload,
            context,
            reservation,
            max_sequences=self._max_sequences,
            max_answer_bytes=self._settings.max_answer_bytes,
        )

    def _request_of(self, decoded: TokenizeRequest) -> TokenizeRequest:
        return decoded

    async def _compute(self, decoded: TokenizeRequest) -> TokenizeResult:
        return await self._service.tokenize(decoded)

    async def _render(
        self,
        decoded: TokenizeRequest,  # noqa: ARG002  # its format is always JSON
        result: TokenizeResult,
        on_thread: RunOnThread,
    ) -> Sequence[bytes]:
        return await render_tokenize(result, on_thread)
