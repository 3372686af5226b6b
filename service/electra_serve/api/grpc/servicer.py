"""electra.v1.EncoderService: from messages to the service and back."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, TypeAlias

from electra_serve.api.grpc import decode
from electra_serve.api.grpc.call import Call
from electra_serve.api.grpc.call_handlers import CallHandlers, Handler
from electra_serve.api.grpc.codec import Codec
from electra_serve.api.grpc.model_info import from_model_info
from electra_serve.api.grpc.render import BYTES_PER_VALUE, Parts
from electra_serve.api.grpc.stream import EncodeStream
from electra_serve.api.grpc.transfer import Transfer
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.observability.requests import REQUEST_ID_PATTERN, RequestObserver, RequestRecord
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.serving.classify import ClassifyRequest
from electra_serve.serving.embed import EmbedRequest
from electra_serve.serving.encode import EncodeRequest
from electra_serve.serving.rerank import RerankRequest
from electra_serve.serving.transit_budget import Reservation, Transit
from electra_serve.settings.model_names import MAX_NAME

SERVICE: Final = pb.DESCRIPTOR.services_by_name["EncoderService"]
SERVICE_NAME: Final = SERVICE.full_name

NamedRequest: TypeAlias = pb.EncodeRequest | pb.ClassifyRequest | pb.EmbedRequest | pb.RerankRequest


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
        self._calls = CallHandlers(observer, codec=codec, transfer=transfer, authenticator=authenticator)

    def methods(self) -> dict[str, Handler]:
        """Returns the handler of every method, by its name in the .proto file."""
        unary = self._calls.unary
        return {
            "Encode": unary("Encode", self._encode, self._admit),
            "EncodeStream": self._calls.stream("EncodeStream", self._open_stream),
            "Classify": unary("Classify", self._classify, self._admit),
            "Embed": unary("Embed", self._embed, self._admit),
            "Rerank": unary("Rerank", self._rerank, self._admit),
            "ListModels": unary("ListModels", self._list_models),
            "GetModel": unary("GetModel", self._get_model),
        }

    def drain(self) -> None:
        """Rejects new requests, and ends every stream once the requests that it has read are served."""
        self._calls.drain()

    def _admit(self, call: Call, record: RequestRecord) -> None:
        record.model = self._service.label(None)  # until the request names another
        self._service.ensure_capacity(call.client)

    async def _encode(self, data: bytes, call: Call, record: RequestRecord, reservation: Reservation) -> Parts:
        message = await self._codec.parse(pb.EncodeRequest, data, call.client)
        size = len(data)
        del data  # the parsed message has a copy
        model = self._begin(message, record)
        return await self._serve(message, size, model, call, record, reservation)

    async def _serve(
        self,
        message: pb.EncodeRequest,
        size: int,
        model: str | None,
        call: Call,
        record: RequestRecord,
        reservation: Reservation,
    ) -> Parts:
        context = call.request_context(record)
        request = EncodeRequest(
            input=await self._codec.to_input(message, size, call.client),
            model=model,
            outputs=decode.to_outputs(message.outputs),
            truncation=decode.to_truncation(message),
            context=context,
            max_values=self._max_answer_bytes // 4,
            transit=Transit(reservation, BYTES_PER_VALUE),
        )
        record.sequences = decode.count(request.input)
        result = await self._service.encode(request)
        record.tokens = result.tokens
        return await self._codec.render(result, record.request_id, call.client)

    async def _classify(self, data: bytes, call: Call, record: RequestRecord, reservation: Reservation) -> Parts:
        message = await self._codec.parse(pb.ClassifyRequest, data, call.client)
        size = len(data)
        del data  # the parsed message has a copy
        model = self._begin(message, record)
        request = ClassifyRequest(
            input=await self._codec.to_input(message, size, call.client),
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
        size = len(data)
        del data  # the parsed message has a copy
        model = self._begin(message, record)
        request = EmbedRequest(
            input=await self._codec.to_input(message, size, call.client),
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
        size = len(data)
        del data  # the parsed message has a copy
        model = self._begin(message, record)
        query, documents = await self._codec.to_documents(message, size, call.client)
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

    def _open_stream(self, call: Call) -> EncodeStream:
        def encode(
            message: pb.EncodeRequest, size: int, record: RequestRecord, reservation: Reservation
        ) -> Awaitable[Parts]:
            model = self._record_model(message, record)  # the stream has recorded the id
            return self._serve(message, size, model, call, record, reservation)

        return EncodeStream(
            encode,
            self._observer,
            call,
            self._codec,
            self._transfer,
            max_requests=self._max_stream_requests,
            carrier=call.metadata,
        )

    async def _list_models(self, data: bytes, call: Call, _: RequestRecord, __: Reservation) -> Parts:
        await self._codec.parse(pb.ListModelsRequest, data, call.client)
        models = [from_model_info(info) for info in self._service.models()]
        return [pb.ListModelsResponse(models=models).SerializeToString()]

    async def _get_model(self, data: bytes, call: Call, record: RequestRecord, _: Reservation) -> Parts:
        name = (await self._codec.parse(pb.GetModelRequest, data, call.client)).name[: MAX_NAME + 1]
        record.model = self._service.label(name)
        model = from_model_info(self._service.model(name))
        return [pb.GetModelResponse(model=model).SerializeToString()]
