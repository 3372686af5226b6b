"""electra.v1.EncoderService: from bytes to the service and back.

Messages are parsed and rendered here, since gRPC fails on malformed bytes with UNKNOWN and the text of an exception. So
the generated servicer base class is not used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NoReturn, TypeAlias

import grpc
from opentelemetry.trace import Span

from electra_serve.api.grpc import decode, status
from electra_serve.api.grpc.call import Call, Context, Metadata, metadata_of, request_id_of
from electra_serve.api.grpc.codec import Codec
from electra_serve.api.grpc.model_info import from_model_info
from electra_serve.api.grpc.render import Parts
from electra_serve.api.grpc.stream import EncodeStream
from electra_serve.api.grpc.transfer import COPIES, Transfer
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.errors import Cancelled, Overloaded, ServiceError, ShuttingDown, Unauthenticated
from electra_serve.observability.requests import REQUEST_ID_PATTERN, RequestObserver, RequestRecord, choose_request_id
from electra_serve.observability.tracing import TRACE_RESPONSE_KEY, traceresponse
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.serving.classify import ClassifyRequest
from electra_serve.serving.embed import EmbedRequest
from electra_serve.serving.encode import EncodeRequest
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.rerank import RerankRequest
from electra_serve.serving.transit_budget import Reservation, Transit
from electra_serve.settings.model_names import MAX_NAME

SERVICE_NAME: Final = pb.DESCRIPTOR.services_by_name["EncoderService"].full_name

BYTES_PER_VALUE: Final = 8  # bytes of a number in a response: a float32 in the result, and one in the message

Handle: TypeAlias = Callable[[bytes, Call, RequestRecord, Reservation], Awaitable[Parts]]

NamedRequest: TypeAlias = pb.EncodeRequest | pb.ClassifyRequest | pb.EmbedRequest | pb.RerankRequest
Admit: TypeAlias = Callable[[Call, RequestRecord], None]  # rejects a call before its message is received


class EncoderServicer:
    """The methods."""

    def __init__(
        self,
        service: EncodeService,
        observer: RequestObserver,
        *,
        codec: Codec,
        max_stream_requests: int,
        max_answer_bytes: int,
        transfer: Transfer,
        authenticator: Authenticator = ALLOW_ALL,
    ) -> None:
        self._service = service
        self._observer = observer
        self._codec = codec
        self._max_stream_requests = max_stream_requests
        self._max_answer_bytes = max_answer_bytes
        self._transfer = transfer
        self._authenticator = authenticator
        self._streams: set[EncodeStream] = set()
        self._draining = False

    def methods(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Returns the handler of every method, by its name in the .proto file."""
        return {
            "Encode": self._unary("Encode", self._encode, self._admit),
            "EncodeStream": grpc.stream_stream_rpc_method_handler(self._encode_stream),
            "Classify": self._unary("Classify", self._classify, self._admit),
            "Embed": self._unary("Embed", self._embed, self._admit),
            "Rerank": self._unary("Rerank", self._rerank, self._admit),
            "ListModels": self._unary("ListModels", self._list_models),
            "GetModel": self._unary("GetModel", self._get_model),
        }

    def drain(self, grace_s: float) -> None:
        """Rejects new requests, and ends every stream once the requests that it has read are served."""
        self._draining = True
        self._transfer.drain(grace_s)
        for stream in self._streams:
            stream.drain()

    def _unary(self, method: str, serve: Handle, admit: Admit = lambda *_: None) -> grpc.RpcMethodHandler[bytes, bytes]:
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
                await _abort(context, error, record.request_id, record.span)

        return grpc.stream_unary_rpc_method_handler(handle)

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

    def _admit(self, call: Call, record: RequestRecord) -> None:
        record.model = self._service.label(None)  # until the request names another
        self._service.ensure_capacity(call.client)

    async def _encode(self, data: bytes, call: Call, record: RequestRecord, reservation: Reservation) -> Parts:
        message = await self._codec.parse(pb.EncodeRequest, data, call.client)
        del data  # the parsed message has a copy
        model = self._begin(message, record)
        return await self._serve(message, model, call, record, reservation)

    async def _serve(
        self, message: pb.EncodeRequest, model: str | None, call: Call, record: RequestRecord, reservation: Reservation
    ) -> Parts:
        request = await self._to_request(message, model, call.request_context(record), reservation)
        record.sequences = decode.count(request.input)
        result = await self._service.encode(request)
        record.tokens = result.tokens
        return await self._codec.render(result, record.request_id, call.client)

    async def _classify(self, data: bytes, call: Call, record: RequestRecord, reservation: Reservation) -> Parts:
        message = await self._codec.parse(pb.ClassifyRequest, data, call.client)
        del data  # the parsed message has a copy
        model = self._begin(message, record)
        request = ClassifyRequest(
            input=await self._codec.to_input(message, call.client),
            model=model,
            options=decode.to_options(message),
            truncation=decode.to_truncation(message),
            context=call.request_context(record),
            max_values=self._max_answer_bytes // 4,
            transit=Transit(reservation, BYTES_PER_VALUE),
        )
        record.sequences = decode.count(request.input)
        result = await self._service.classify(request)
        record.tokens = result.tokens
        return await self._codec.render_classified(result, record.request_id, call.client)

    async def _embed(self, data: bytes, call: Call, record: RequestRecord, reservation: Reservation) -> Parts:
        message = await self._codec.parse(pb.EmbedRequest, data, call.client)
        del data  # the parsed message has a copy
        model = self._begin(message, record)
        request = EmbedRequest(
            input=await self._codec.to_input(message, call.client),
            model=model,
            prompt_name=message.prompt_name if message.HasField("prompt_name") else None,
            input_type=message.input_type if message.HasField("input_type") else None,
            normalize=message.normalize if message.HasField("normalize") else True,
            dimensions=message.dimensions if message.HasField("dimensions") else None,
            truncation=decode.to_rule(message.truncation),
            context=call.request_context(record),
            max_values=self._max_answer_bytes // 4,
            transit=Transit(reservation, BYTES_PER_VALUE),
        )
        record.sequences = decode.count(request.input)
        result = await self._service.embed(request)
        record.tokens = result.tokens
        return await self._codec.render_embedded(result, record.request_id, call.client)

    async def _rerank(self, data: bytes, call: Call, record: RequestRecord, reservation: Reservation) -> Parts:
        message = await self._codec.parse(pb.RerankRequest, data, call.client)
        del data  # the parsed message has a copy
        model = self._begin(message, record)
        query, documents = await self._codec.to_documents(message, call.client)
        request = RerankRequest(
            query=query,
            documents=documents,
            model=model,
            top_n=message.top_n if message.HasField("top_n") else None,
            raw_scores=message.raw_scores,
            context=call.request_context(record),
            max_values=self._max_answer_bytes // 4,
            transit=Transit(reservation, BYTES_PER_VALUE),
        )
        record.sequences = len(documents)
        result = await self._service.rerank(request)
        record.tokens = result.tokens
        return await self._codec.render_reranked(result, record.request_id, call.client)

    def _begin(self, message: NamedRequest, record: RequestRecord) -> str | None:
        """Records id and model of a request; returns the name of the model."""
        if REQUEST_ID_PATTERN.fullmatch(message.request_id):
            record.request_id = message.request_id
        return self._record_model(message, record)

    def _record_model(self, message: NamedRequest, record: RequestRecord) -> str | None:
        model = message.model[: MAX_NAME + 1] or None  # no model has a longer name
        record.model = self._service.label(model)
        return model

    async def _to_request(
        self,
        message: pb.EncodeRequest,
        model: str | None,
        context: RequestContext,
        reservation: Reservation,
    ) -> EncodeRequest:
        return EncodeRequest(
            input=await self._codec.to_input(message, context.client),
            model=model,
            outputs=decode.to_outputs(message.outputs),
            truncation=decode.to_truncation(message),
            context=context,
            max_values=self._max_answer_bytes // 4,
            transit=Transit(reservation, BYTES_PER_VALUE),
        )

    async def _encode_stream(self, _: AsyncIterator[bytes], context: Context) -> None:
        metadata = metadata_of(context)
        request_id = choose_request_id(request_id_of(metadata))
        try:
            await self._run_stream(self._stream_call(context, metadata, request_id))
        except (Unauthenticated, ShuttingDown, Cancelled, Overloaded) as error:
            await _abort(context, error, request_id)
        except ExceptionGroup as group:
            if group.subgroup(grpc.aio.InternalError) is None:
                raise
            # A response could not be written: the client has disconnected, and gRPC is about to report it.
            raise asyncio.CancelledError from group

    async def _run_stream(self, call: Call) -> None:
        def encode(message: pb.EncodeRequest, record: RequestRecord, reservation: Reservation) -> Awaitable[Parts]:
            model = self._record_model(message, record)  # the stream has recorded the id
            return self._serve(message, model, call, record, reservation)

        self._reject_when_draining()
        stream = EncodeStream(
            encode,
            self._observer,
            call,
            self._codec,
            self._transfer,
            max_requests=self._max_stream_requests,
            carrier=call.metadata,
        )
        self._streams.add(stream)
        try:
            receiving = await self._transfer.reserve(call, copies=1)  # each request that is read reserves its own
            self._reject_when_draining()  # a drain ends only streams that read
            if not await stream.run(receiving):
                raise _shutting_down()
        finally:
            self._streams.discard(stream)

    def _stream_call(self, context: Context, metadata: Metadata, request_id: str) -> Call:
        """Authenticates a stream; a rejected one counts as a request."""
        try:
            return Call.of(context, metadata, self._authenticator)
        except Unauthenticated:
            with self._observer.request("EncodeStream", request_id):
                raise

    def _reject_when_draining(self) -> None:
        if self._draining:
            raise _shutting_down()

    async def _list_models(self, data: bytes, call: Call, _: RequestRecord, __: Reservation) -> Parts:
        await self._codec.parse(pb.ListModelsRequest, data, call.client)
        models = [from_model_info(info) for info in self._service.models()]
        return [pb.ListModelsResponse(models=models).SerializeToString()]

    async def _get_model(self, data: bytes, call: Call, record: RequestRecord, _: Reservation) -> Parts:
        name = (await self._codec.parse(pb.GetModelRequest, data, call.client)).name[: MAX_NAME + 1]
        record.model = self._service.label(name)
        model = from_model_info(self._service.model(name))
        return [pb.GetModelResponse(model=model).SerializeToString()]


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the server is shutting down; requests without a response were not started")


def _naming(span: Span | None) -> tuple[tuple[str, str], ...]:
    return () if span is None else ((TRACE_RESPONSE_KEY, traceresponse(span)),)


async def _abort(context: Context, error: ServiceError, request_id: str, span: Span | None = None) -> NoReturn:
    await context.abort(
        status.code_of(error),
        status.details(error, request_id),
        (*status.trailing_metadata(error, request_id), *_naming(span)),
    )
