"""`POST /v1/embeddings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from electra_serve.api.rest.endpoint import JsonEndpoint
from electra_serve.api.rest.openai.decode import DecodedEmbeddings, decode_embeddings
from electra_serve.api.rest.openai.render import render_embeddings
from electra_serve.api.rest.render import RunOnThread
from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.serving.embed import EmbedRequest, EmbedResult
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.sequences import renamed_field
from electra_serve.serving.transit_budget import Reservation

TRUNCATED_HEADER: Final = "x-truncated-inputs"


class EmbeddingsEndpoint(JsonEndpoint[DecodedEmbeddings, EmbedResult]):
    """Endpoint of `POST /v1/embeddings`."""

    route = "POST /v1/embeddings"

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> DecodedEmbeddings:
        return decode_embeddings(
            payload,
            context,
            reservation,
            max_inputs=self._max_sequences,
            max_answer_bytes=self._settings.max_answer_bytes,
        )

    def _request_of(self, decoded: DecodedEmbeddings) -> EmbedRequest:
        return decoded.request

    async def _compute(self, decoded: DecodedEmbeddings) -> EmbedResult:
        try:
            return await self._service.embed(decoded.request)
        except (InvalidInput, PayloadTooLarge) as error:
            raise type(error)(error.message, field=renamed_field(error.field, "input")) from error

    def _headers(self, result: EmbedResult) -> Mapping[str, str]:
        return {TRUNCATED_HEADER: str(sum(result.truncated))}

    async def _render(self, decoded: DecodedEmbeddings, result: EmbedResult, on_thread: RunOnThread) -> Sequence[bytes]:
        return await render_embeddings(result, decoded.encoding_format, on_thread)
