"""`POST /v1/encode`: reads, decodes, encodes and renders, unless the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from electra_serve.api.rest.body import declared_length, parse_json, read_body, reject_bulk
from electra_serve.api.rest.decode import Decoded, decode
from electra_serve.api.rest.disconnect import unless_disconnected
from electra_serve.api.rest.headers import context_of, headers_of
from electra_serve.api.rest.middleware import name_span, request_id
from electra_serve.api.rest.render import JsonChunks, render
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.observability.requests import RequestObserver
from electra_serve.runtime.work_thread import WorkThread, await_loop_turn
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.service import EncodeRequest
from electra_serve.serving.transit_budget import Reservation, TransitBudget
from electra_serve.settings.schema import RestSettings
from electra_serve.tensors import TokenInput

LARGE_BODY_BYTES: Final = 16_384  # larger bodies are decoded on the decoding thread: that takes a millisecond and more


class EncodeEndpoint:
    """Endpoint of `POST /v1/encode`."""

    def __init__(
        self,
        service: EncodeService,
        settings: RestSettings,
        observer: RequestObserver,
        *,
        max_sequences: int,
        budget: TransitBudget,
        thread: WorkThread,
        authenticator: Authenticator = ALLOW_ALL,
    ) -> None:
        self._service = service
        self._settings = settings
        self._observer = observer
        self._max_sequences = max_sequences
        self._budget = budget
        self._authenticator = authenticator
        self._thread = thread

    async def encode(self, request: Request) -> Response:
        """Serves one request; raises a `ServiceError`."""
        headers = headers_of(request.scope)
        with self._observer.request("POST /v1/encode", request_id(request.scope), headers) as record:
            name_span(request.scope, record.span)
            context = context_of(request, record, self._authenticator)
            record.model = self._service.label(None)  # until the request names another
            self._service.ensure_capacity(context.client)
            reservation = self._reserve(context.client, headers)
            decoded = await self._decode(request, context, reservation)
            record.model = self._service.label(decoded.request.model)
            record.sequences = _sequences(decoded.request)
            result = await unless_disconnected(self._service.encode(decoded.request), request.receive)
            record.tokens = result.tokens
            chunks = await render(result, decoded.encoding_format, partial(self._thread.run, context.client))
            return JsonChunks(chunks, send_timeout_s=self._settings.send_timeout_s, reservation=reservation)

    def _reserve(self, client: str, headers: Mapping[str, str]) -> Reservation:
        """Reserves the bytes of the body until the request's task ends; by then its response is sent."""
        reservation = self._budget.reserve(client, declared_length(headers, self._settings.max_body_bytes))
        task = asyncio.current_task()
        if task is not None:
            reservation.release_after(task)
        return reservation

    async def _decode(self, request: Request, context: RequestContext, reservation: Reservation) -> Decoded:
        body = await read_body(headers_of(request.scope), request.receive, self._settings, context.deadline)
        reservation.shrink(len(body))
        if len(body) <= LARGE_BODY_BYTES:
            return self._parse(body, context, reservation)
        parsing = self._thread.run(context.client, partial(self._parse, body, context, reservation))
        return await unless_disconnected(parsing, request.receive)

    def _parse(self, body: bytes, context: RequestContext, reservation: Reservation) -> Decoded:
        reject_bulk(body, self._max_sequences)
        await_loop_turn()
        payload = parse_json(body)
        await_loop_turn()
        return decode(
            payload,
            context,
            reservation,
            max_sequences=self._max_sequences,
            max_answer_bytes=self._settings.max_answer_bytes,
        )


def _sequences(request: EncodeRequest) -> int:
    tokens_or_text = request.input
    return len(tokens_or_text.token_ids if isinstance(tokens_or_text, TokenInput) else tokens_or_text.texts)
