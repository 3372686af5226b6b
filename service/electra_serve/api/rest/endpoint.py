"""Bases of `POST` endpoints that compute: read, decode, compute and render, unless the client disconnects."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Final, Generic, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from electra_serve.api.rest.body import MAX_KEYS, declared_length, parse_json, read_body, reject_bulk
from electra_serve.api.rest.disconnect import unless_disconnected
from electra_serve.api.rest.headers import context_of, headers_of
from electra_serve.api.rest.middleware import name_span, request_id
from electra_serve.api.rest.render import EncodedResponse, RunOnThread
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.observability.requests import RequestObserver
from electra_serve.runtime.work_thread import WorkThread, await_loop_turn
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.transit_budget import Reservation, TransitBudget
from electra_serve.settings.schema import RestSettings
from electra_serve.tensors import TextInput, TokenInput

LARGE_BODY_BYTES: Final = 16_384
"""Larger bodies are decoded on the decoding thread: that takes a millisecond and more."""


class ComputeRequest(Protocol):
    """Part of a request that every endpoint needs."""

    @property
    def model(self) -> str | None:
        """Name of the model; None for the only one."""

    @property
    def input(self) -> TokenInput | TextInput:
        """The sequences."""


class ComputeResult(Protocol):
    """Part of a result that every endpoint needs."""

    @property
    def tokens(self) -> int:
        """Unmasked positions."""


D = TypeVar("D")
T = TypeVar("T")
R = TypeVar("R", bound=ComputeResult)


class ComputeEndpoint(ABC, Generic[D, R]):
    """Endpoint that decodes a request to `D`, and computes and renders an `R`."""

    route: ClassVar[str]

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

    async def serve(self, request: Request) -> Response:
        """Serves one request; raises a `ServiceError`."""
        headers = headers_of(request.scope)
        with self._observer.request(self.route, request_id(request.scope), headers) as record:
            name_span(request.scope, record.span)
            context = context_of(request, record, self._authenticator)
            record.model = self._service.label(self._named_model(request.scope))  # until the body names another
            self._service.ensure_capacity(context.client)
            reservation = self._reserve(context.client, headers)
            decoded = await self._decode(request, context, reservation)
            computed = self._request_of(decoded)
            record.model = self._service.label(computed.model)
            record.sequences = self._count(decoded)
            result = await unless_disconnected(self._compute(decoded), request.receive)
            record.tokens = result.tokens
            return await self._respond(decoded, result, partial(self._thread.run, context.client), reservation)

    def _named_model(self, scope: Scope) -> str | None:  # noqa: ARG002  # for subclasses
        """Returns the model that the path names."""
        return None

    def _count(self, decoded: D) -> int:
        """Returns the number of sequences, for logs and metrics."""
        return _sequences(self._request_of(decoded).input)

    @abstractmethod
    async def _decode(self, request: Request, context: RequestContext, reservation: Reservation) -> D:
        """Reads and converts a request; raises a `ServiceError`."""

    @abstractmethod
    def _request_of(self, decoded: D) -> ComputeRequest: ...

    @abstractmethod
    async def _compute(self, decoded: D) -> R: ...

    @abstractmethod
    async def _respond(
        self, decoded: D, result: R, on_thread: RunOnThread, reservation: Reservation
    ) -> EncodedResponse: ...

    def _reserve(self, client: str, headers: Mapping[str, str]) -> Reservation:
        """Reserves the bytes of the body until the request's task ends; by then its response is sent."""
        reservation = self._budget.reserve(client, declared_length(headers, self._settings.max_body_bytes))
        task = asyncio.current_task()
        if task is not None:
            reservation.release_after(task)
        return reservation

    async def _in_turn(self, size: int, work: Callable[[], T], request: Request, context: RequestContext) -> T:
        """Runs `work`, on the decoding thread if the body is large."""
        if size <= LARGE_BODY_BYTES:
            return work()
        return await unless_disconnected(self._thread.run(context.client, work), request.receive)

    def _respond_with(self, chunks: Sequence[bytes | memoryview], reservation: Reservation) -> EncodedResponse:
        return EncodedResponse(chunks, send_timeout_s=self._settings.send_timeout_s, reservation=reservation)


class JsonEndpoint(ComputeEndpoint[D, R]):
    """Endpoint of JSON requests and responses."""

    @property
    def max_members(self) -> int:
        """Most braces and colons of a body."""
        return MAX_KEYS

    def _choose_errors(self, payload: object, scope: Scope) -> None:
        """Chooses the form of errors, if it depends on the body."""

    def _headers(self, result: R) -> Mapping[str, str]:  # noqa: ARG002  # for subclasses
        """Returns further headers of a response."""
        return {}

    @abstractmethod
    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> D:
        """Converts a parsed body; raises a `ServiceError`."""

    @abstractmethod
    async def _render(self, decoded: D, result: R, on_thread: RunOnThread) -> Sequence[bytes]: ...

    async def _respond(
        self, decoded: D, result: R, on_thread: RunOnThread, reservation: Reservation
    ) -> EncodedResponse:
        response = self._respond_with(await self._render(decoded, result, on_thread), reservation)
        response.headers.update(self._headers(result))
        return response

    async def _decode(self, request: Request, context: RequestContext, reservation: Reservation) -> D:
        body = await read_body(headers_of(request.scope), request.receive, self._settings, context.deadline)
        reservation.shrink(len(body))
        parse = partial(self._parse, body, request.scope, context, reservation)
        return await self._in_turn(len(body), parse, request, context)

    def _parse(self, body: bytes, scope: Scope, context: RequestContext, reservation: Reservation) -> D:
        reject_bulk(body, self._max_sequences, self.max_members)
        await_loop_turn()
        payload = parse_json(body)
        self._choose_errors(payload, scope)
        await_loop_turn()
        return self._convert(payload, context, reservation)


def _sequences(sequences: TokenInput | TextInput) -> int:
    return len(sequences.token_ids if isinstance(sequences, TokenInput) else sequences.texts)
