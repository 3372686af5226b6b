"""`POST /v1/classify`."""

from __future__ import annotations

from collections.abc import Sequence

from electra_serve.api.rest.decode_classify import decode_classify
from electra_serve.api.rest.endpoint import JsonEndpoint
from electra_serve.api.rest.render import RunOnThread
from electra_serve.api.rest.render_classify import render_classify
from electra_serve.serving.classify import ClassifyRequest, ClassifyResult
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.transit_budget import Reservation


class ClassifyEndpoint(JsonEndpoint[ClassifyRequest, ClassifyResult]):
    """Endpoint of `POST /v1/classify`."""

    route = "POST /v1/classify"

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> ClassifyRequest:
        return decode_classify(
            payload,
            context,
            reservation,
            max_sequences=self._max_sequences,
            max_answer_bytes=self._settings.max_answer_bytes,
        )

    def _request_of(self, decoded: ClassifyRequest) -> ClassifyRequest:
        return decoded

    async def _compute(self, decoded: ClassifyRequest) -> ClassifyResult:
        return await self._service.classify(decoded)

    async def _render(
        self,
        decoded: ClassifyRequest,  # noqa: ARG002  # its format is always JSON
        result: ClassifyResult,
        on_thread: RunOnThread,
    ) -> Sequence[bytes]:
        return await render_classify(result, on_thread)
