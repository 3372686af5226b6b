"""`POST /v1/encode`."""

from __future__ import annotations

from collections.abc import Sequence

from electra_serve.api.rest.decode import Decoded, decode
from electra_serve.api.rest.endpoint import JsonEndpoint
from electra_serve.api.rest.render import RunOnThread, render
from electra_serve.serving.encode import EncodeRequest, EncodeResult
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.transit_budget import Reservation


class EncodeEndpoint(JsonEndpoint[Decoded, EncodeResult]):
    """Endpoint of `POST /v1/encode`."""

    route = "POST /v1/encode"

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> Decoded:
        return decode(
            payload,
            context,
            reservation,
            max_sequences=self._max_sequences,
            max_answer_bytes=self._settings.max_answer_bytes,
        )

    def _request_of(self, decoded: Decoded) -> EncodeRequest:
        return decoded.request

    async def _compute(self, decoded: Decoded) -> EncodeResult:
        return await self._service.encode(decoded.request)

    async def _render(self, decoded: Decoded, result: EncodeResult, on_thread: RunOnThread) -> Sequence[bytes]:
        return await render(result, decoded.encoding_format, on_thread)
