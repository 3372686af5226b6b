"""Endpoint of `POST /v2/models/{name}/infer`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.types import Scope

from electra_serve.api.oip.decode import Decoded, check_version, decode
from electra_serve.api.oip.outputs import outputs_of
from electra_serve.api.rest.body import (
    BINARY_MEDIA_TYPE,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    content_coding,
    parse_json,
    read_body,
    reject_bulk,
)
from electra_serve.api.rest.decode import BYTES_PER_VALUE, FLOAT32_BYTES
from electra_serve.api.rest.disconnect import unless_disconnected
from electra_serve.api.rest.endpoint import LARGE_BODY_BYTES, ComputeEndpoint
from electra_serve.api.rest.headers import LENGTH_HEADER, headers_of
from electra_serve.api.rest.oip.compression import decompress, response_coding
from electra_serve.api.rest.oip.decode import InferBody, infer_body, json_length
from electra_serve.api.rest.oip.errors import INFER_BODY
from electra_serve.api.rest.oip.render import render
from electra_serve.api.rest.render import EncodedResponse, RunOnThread
from electra_serve.errors import PayloadTooLarge, ServiceError
from electra_serve.runtime.work_thread import await_loop_turn
from electra_serve.serving.encode import EncodeRequest, EncodeResult
from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.transit_budget import Reservation, Transit
from electra_serve.settings.schema import RestSettings

MAX_MEMBERS: Final = 256  # most braces and colons of a body; a valid request with parameters has about 100
BINARY_PER_JSON: Final = 16  # bytes of tensors that cost as much as one of JSON: ids are not even copied
MAX_DEPTH: Final = 3  # deepest nesting of lists: inputs, each with rows of elements


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """A decoded request, and the form of its response."""

    decoded: Decoded
    body: InferBody
    coding: str  # of the response; "" for none


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """Data of a request besides its body."""

    info: ModelInfo
    model: str
    version: str
    headers: Mapping[str, str]
    settings: RestSettings  # with the limit of this body
    context: RequestContext
    reservation: Reservation


class InferEndpoint(ComputeEndpoint[Inference, EncodeResult]):
    """Endpoint of `infer`; `max_json_bytes` limits the JSON, which takes longer to parse than tensors as bytes."""

    route = "POST /v2/models/{name}/infer"

    def __init__(self, *given: Any, max_json_bytes: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self._json_settings = self._settings.model_copy(update={"max_body_bytes": max_json_bytes})

    def _named_model(self, scope: Scope) -> str | None:
        name: str = scope["path_params"]["name"]
        return name

    def _request_of(self, decoded: Inference) -> EncodeRequest:
        return decoded.decoded.request

    async def _compute(self, decoded: Inference) -> EncodeResult:
        try:
            return await self._service.encode(decoded.decoded.request)
        except ServiceError as error:
            error.field = decoded.decoded.renamed(error.field)
            raise

    async def _decode(self, request: Request, context: RequestContext, reservation: Reservation) -> Inference:
        name, version = request.path_params["name"], request.path_params.get("version", "")
        headers = headers_of(request.scope)
        settings = self._settings if LENGTH_HEADER in headers else self._json_settings
        call = _Call(self._service.model(name), name, version, headers, settings, context, reservation)
        check_version(version)
        body = await read_body(headers, request.receive, settings, context.deadline, INFER_BODY)
        reservation.shrink(len(body))
        if coding := content_coding(headers):
            body = await self._decompressed(body, coding, request, call)
        json_bytes = json_length(headers, len(body))
        size = json_bytes + (len(body) - json_bytes) // BINARY_PER_JSON
        return await self._in_turn(size, partial(self._convert, body, json_bytes, call), request, context)

    async def _decompressed(self, body: bytes, coding: str, request: Request, call: _Call) -> bytes:
        """Decompresses a body, on the decoding thread if it is large or becomes large."""
        plain = decompress(body, coding, LARGE_BODY_BYTES) if len(body) <= LARGE_BODY_BYTES else None
        if plain is None:
            most = call.settings.max_body_bytes
            await unless_disconnected(call.reservation.resize(len(body) + most), request.receive)
            work = partial(decompress, body, coding, most)
            plain = await unless_disconnected(self._thread.run(call.context.client, work), request.receive)
        if plain is None:
            raise PayloadTooLarge(f"the body must have at most {most} bytes once decompressed; got more")
        call.reservation.shrink(len(plain))
        return plain

    def _convert(self, body: bytes, length: int, call: _Call) -> Inference:
        most = self._json_settings.max_body_bytes
        if length > most:
            raise PayloadTooLarge(
                f"the JSON of a request must have at most {most} bytes; got {length}: send tensors as binary data"
            )
        header = body[:length]
        reject_bulk(header, self._max_sequences, MAX_MEMBERS, max_depth=MAX_DEPTH)
        await_loop_turn()
        payload = parse_json(header)
        await_loop_turn()
        binary = memoryview(body)[length:]
        parsed = infer_body(payload, binary, call.model, call.version, max_sequences=self._max_sequences)
        names = outputs_of(call.info) if parsed.infer.outputs is None else parsed.infer.outputs
        # The bound has one size for all numbers: a tensor in JSON makes all of them count as JSON
        number_bytes = FLOAT32_BYTES if all(map(parsed.is_binary, names)) else BYTES_PER_VALUE["float"]
        decoded = decode(
            parsed.infer,
            call.info,
            call.context,
            max_values=int(self._settings.max_answer_bytes / number_bytes),
            transit=Transit(call.reservation, _held_bytes(number_bytes)),
        )
        return Inference(decoded, parsed, response_coding(call.headers))

    async def _respond(
        self, decoded: Inference, result: EncodeResult, on_thread: RunOnThread, reservation: Reservation
    ) -> EncodedResponse:
        rendered = await render(result, decoded.decoded.outputs, decoded.body, decoded.coding, on_thread)
        response = self._respond_with(rendered.chunks, reservation)
        if rendered.json_bytes is not None:
            response.headers[CONTENT_TYPE] = BINARY_MEDIA_TYPE
            response.headers[LENGTH_HEADER] = str(rendered.json_bytes)
        if decoded.coding:
            response.headers[CONTENT_ENCODING] = decoded.coding
        return response


def _held_bytes(number_bytes: float) -> int:
    """Returns the bytes of a number in the result, in its rectangle and, in JSON, as text."""
    return 2 * FLOAT32_BYTES + (0 if number_bytes == FLOAT32_BYTES else math.ceil(number_bytes))
