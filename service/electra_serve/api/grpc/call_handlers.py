"""Handlers of the calls of one gRPC service, from their heads to their last bytes.

Messages are parsed and rendered by the services, since gRPC fails on malformed bytes with UNKNOWN and the text of an
exception. So generated servicer base classes are not used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn, TypeAlias

import grpc
from opentelemetry.trace import Span

from electra_serve.api.grpc import status
from electra_serve.api.grpc.call import Call, Context, Metadata, metadata_of, request_id_of
from electra_serve.api.grpc.codec import Codec
from electra_serve.api.grpc.render import Parts
from electra_serve.api.grpc.stream import RequestStream
from electra_serve.api.grpc.transfer import COPIES, Transfer
from electra_serve.api.security.authentication import Authenticator
from electra_serve.errors import Cancelled, Overloaded, ServiceError, ShuttingDown, Unauthenticated
from electra_serve.observability.requests import RequestObserver, RequestRecord, choose_request_id
from electra_serve.observability.tracing import TRACE_RESPONSE_KEY, traceresponse
from electra_serve.serving.transit_budget import Reservation

Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
Handle: TypeAlias = Callable[[bytes, Call, RequestRecord, Reservation], Awaitable[Parts]]
Admit: TypeAlias = Callable[[Call, RequestRecord], None]  # rejects a call before its message is received


class CallHandlers:
    """Builds handlers that authenticate, limit, observe and drain calls, and report their errors."""

    def __init__(
        self, observer: RequestObserver, *, codec: Codec, transfer: Transfer, authenticator: Authenticator
    ) -> None:
        self._observer = observer
        self._codec = codec
        self._transfer = transfer
        self._authenticator = authenticator
        self._streams: set[RequestStream] = set()
        self._draining = False

    def drain(self) -> None:
        """Rejects new requests, and ends every stream once the requests that it has read are served."""
        self._draining = True
        for stream in self._streams:
            stream.drain()

    def unary(self, method: str, serve: Handle, admit: Admit = lambda *_: None) -> Handler:
        """Returns the handler of a unary method."""

        async def handle(_: AsyncIterator[bytes], context: Context) -> bytes:
            metadata = metadata_of(context)
            try:
                with self._observer.request(method, choose_request_id(request_id_of(metadata)), metadata) as record:
                    call = Call.of(context, metadata, self._authenticator)
                    self._reject_when_draining()
                    with call.deadline():
                        admit(call, record)
                        return await self._respond(call, record, serve)
            except ServiceError as error:
                await abort(context, error, record.request_id, record.span)

        return grpc.stream_unary_rpc_method_handler(handle)

    def stream(self, method: str, open_stream: Callable[[Call], RequestStream]) -> Handler:
        """Returns the handler of a method whose calls have many requests."""

        async def handle(_: AsyncIterator[bytes], context: Context) -> None:
            metadata = metadata_of(context)
            request_id = choose_request_id(request_id_of(metadata))
            try:
                call = self._stream_call(method, context, metadata, request_id)
                self._reject_when_draining()
                await self._run(open_stream(call), call)
            except (Unauthenticated, ShuttingDown, Cancelled, Overloaded) as error:
                await abort(context, error, request_id)
            except ExceptionGroup as group:
                if group.subgroup(grpc.aio.InternalError) is None:
                    raise
                # A response could not be written: the client has disconnected, and gRPC is about to report it.
                raise asyncio.CancelledError from group

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _respond(self, call: Call, record: RequestRecord, serve: Handle) -> bytes:
        """Receives the message of a unary call and returns the response."""
        reservation = await self._transfer.reserve(call)
        self._reject_when_draining()
        data = await self._transfer.receive(call.context)
        reservation.shrink(COPIES * len(data))
        serving = serve(data, call, record, reservation)
        del data
        response = await self._codec.join(await serving, call.client)
        call.context.set_trailing_metadata(((status.REQUEST_ID_KEY, record.request_id), *_naming(record.span)))
        self._transfer.limit_sending(call.context, response)
        return response

    async def _run(self, stream: RequestStream, call: Call) -> None:
        self._streams.add(stream)
        try:
            receiving = await self._transfer.reserve(call, copies=1)  # each request that is read reserves its own
            self._reject_when_draining()  # a drain ends only streams that read
            if not await stream.run(receiving):
                raise _shutting_down()
        finally:
            self._streams.discard(stream)

    def _stream_call(self, method: str, context: Context, metadata: Metadata, request_id: str) -> Call:
        """Authenticates a stream; a rejected one counts as a request."""
        try:
            return Call.of(context, metadata, self._authenticator)
        except Unauthenticated:
            with self._observer.request(method, request_id):
                raise

    def _reject_when_draining(self) -> None:
        if self._draining:
            raise _shutting_down()


async def abort(context: Context, error: ServiceError, request_id: str, span: Span | None = None) -> NoReturn:
    """Ends a call with an error."""
    await context.abort(
        status.code_of(error),
        status.details(error, request_id),
        (*status.trailing_metadata(error, request_id), *_naming(span)),
    )


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the server is shutting down; requests without a response were not started")


def _naming(span: Span | None) -> tuple[tuple[str, str], ...]:
    return () if span is None else ((TRACE_RESPONSE_KEY, traceresponse(span)),)
