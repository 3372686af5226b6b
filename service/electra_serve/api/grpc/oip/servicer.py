"""inference.GRPCInferenceService: from messages to the service and back.

Probes need no key and are not counted as requests, as those of grpc.health.v1. Calls of shared memory and other missing
extensions get gRPC's own UNIMPLEMENTED.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import grpc

from electra_serve import __version__
from electra_serve.api.grpc.call import Call, Context
from electra_serve.api.grpc.call_handlers import CallHandlers, Handler, abort
from electra_serve.api.grpc.codec import Codec
from electra_serve.api.grpc.decode import count
from electra_serve.api.grpc.oip.codec import InferCodec, Received
from electra_serve.api.grpc.oip.describe import from_index, from_metadata, from_statistics, to_config
from electra_serve.api.grpc.oip.render import NO_PARAMETERS
from electra_serve.api.grpc.oip.stream import InferStream
from electra_serve.api.grpc.parsing import parse_small
from electra_serve.api.grpc.receiver import Receiver
from electra_serve.api.grpc.render import BYTES_PER_VALUE, Parts
from electra_serve.api.grpc.transfer import Transfer
from electra_serve.api.oip.decode import Decoded, check_version, decode
from electra_serve.api.oip.metadata import EXTENSIONS, SERVER_NAME, ModelMetadata, describe, index_entry
from electra_serve.api.oip.parts import OipParts
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.errors import ModelNotFound, ServiceError
from electra_serve.observability.requests import REQUEST_ID_PATTERN, RequestRecord, choose_request_id
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.encode import EncodeResult
from electra_serve.serving.model_info import ModelState
from electra_serve.serving.transit_budget import Reservation, Transit
from electra_serve.settings.model_names import MAX_NAME

SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE_NAME: Final = SERVICE.full_name


class InferenceServicer:
    """The methods."""

    def __init__(
        self,
        service: EncodeService,
        oip: OipParts,
        *,
        codec: Codec,
        infer_codec: InferCodec,
        thread: WorkThread,
        receiver: Receiver,
        transfer: Transfer,
        max_stream_requests: int,
        max_answer_bytes: int,
        authenticator: Authenticator = ALLOW_ALL,
    ) -> None:
        self._service = service
        self._oip = oip
        self._codec = codec
        self._infer_codec = infer_codec
        self._thread = thread
        self._receiver = receiver  # of calls without a key
        self._transfer = transfer
        self._max_stream_requests = max_stream_requests
        self._max_answer_bytes = max_answer_bytes
        self._calls = CallHandlers(oip.observer, codec=codec, transfer=transfer, authenticator=authenticator)

    def methods(self) -> dict[str, Handler]:
        """Returns the handler of every method, by its name in the .proto file."""
        unary = self._calls.unary
        return {
            "ServerLive": self._probe(self._server_live),
            "ServerReady": self._probe(self._server_ready),
            "ModelReady": self._probe(self._model_ready),
            "ServerMetadata": unary("ServerMetadata", self._server_metadata),
            "ModelMetadata": unary("ModelMetadata", self._model_metadata),
            "ModelInfer": unary("ModelInfer", self._model_infer, self._admit),
            "ModelStreamInfer": self._calls.stream("ModelStreamInfer", self._open_stream),
            "ModelConfig": unary("ModelConfig", self._model_config),
            "ModelStatistics": unary("ModelStatistics", self._model_statistics),
            "RepositoryIndex": unary("RepositoryIndex", self._repository_index),
        }

    def drain(self) -> None:
        """Rejects new requests, and ends every stream once the requests that it has read are served."""
        self._calls.drain()

    def _probe(self, respond: Callable[[bytes], bytes]) -> Handler:
        async def handle(_: AsyncIterator[bytes], context: Context) -> bytes:
            try:
                return respond(await self._receiver.receive(context))
            except ServiceError as error:
                await abort(context, error, choose_request_id(None))

        return grpc.stream_unary_rpc_method_handler(handle)

    def _server_live(self, data: bytes) -> bytes:
        parse_small(pb.ServerLiveRequest, data)
        return pb.ServerLiveResponse(live=True).SerializeToString()

    def _server_ready(self, data: bytes) -> bytes:
        parse_small(pb.ServerReadyRequest, data)
        return pb.ServerReadyResponse(ready=self._service.ready).SerializeToString()

    def _model_ready(self, data: bytes) -> bytes:
        request = parse_small(pb.ModelReadyRequest, data)
        try:
            check_version(request.version)
            ready = self._service.model(request.name).state is ModelState.READY
        except ModelNotFound:  # an error would be an exception in clients, whose HTTP side returns False
            ready = False
        return pb.ModelReadyResponse(ready=ready).SerializeToString()

    async def _server_metadata(self, data: bytes, call: Call, _: RequestRecord, __: Reservation) -> Parts:
        await self._codec.parse(pb.ServerMetadataRequest, data, call.client, strict=False)
        response = pb.ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=EXTENSIONS)
        return [response.SerializeToString()]

    async def _model_metadata(self, data: bytes, call: Call, _: RequestRecord, __: Reservation) -> Parts:
        request = await self._codec.parse(pb.ModelMetadataRequest, data, call.client, strict=False)
        return [from_metadata(self._describe(request.name, request.version)).SerializeToString()]

    async def _model_config(self, data: bytes, call: Call, _: RequestRecord, __: Reservation) -> Parts:
        request = await self._codec.parse(pb.ModelConfigRequest, data, call.client, strict=False)
        return [to_config(self._describe(request.name, request.version)).SerializeToString()]

    async def _model_statistics(self, data: bytes, call: Call, _: RequestRecord, __: Reservation) -> Parts:
        request = await self._codec.parse(pb.ModelStatisticsRequest, data, call.client, strict=False)
        check_version(request.version)
        infos = [self._service.model(request.name[: MAX_NAME + 1])] if request.name else self._service.models()
        found = [
            await self._thread.run(call.client, partial(self._oip.statistics, info.name))  # reading takes a millisecond
            for info in infos
        ]
        return [from_statistics(found).SerializeToString()]

    async def _repository_index(self, data: bytes, call: Call, _: RequestRecord, __: Reservation) -> Parts:
        request = await self._codec.parse(pb.RepositoryIndexRequest, data, call.client, strict=False)
        infos = [info for info in self._service.models() if not request.ready or info.state is ModelState.READY]
        return [from_index([index_entry(info) for info in infos]).SerializeToString()]

    def _describe(self, name: str, version: str) -> ModelMetadata:
        """Describes a model. The call is not counted as one of its requests, whose totals are its statistics."""
        info = self._service.model(name[: MAX_NAME + 1])  # no model has a longer name
        check_version(version)
        return describe(info)

    def _admit(self, call: Call, record: RequestRecord) -> None:
        record.model = self._service.label(None)  # until the request names another
        self._service.ensure_capacity(call.client)

    async def _model_infer(self, data: bytes, call: Call, record: RequestRecord, reservation: Reservation) -> Parts:
        received = await self._infer_codec.parse(data, call.client)
        del data  # the parsed message has a copy
        return await self._infer(received, call, record, reservation, NO_PARAMETERS)

    def _open_stream(self, call: Call) -> InferStream:
        def infer(
            received: Received, record: RequestRecord, reservation: Reservation, parameters: Mapping[str, bool]
        ) -> Awaitable[Parts]:
            return self._infer(received, call, record, reservation, parameters)

        return InferStream(
            infer,
            self._oip.observer,
            call,
            self._codec,
            self._infer_codec,
            self._transfer,
            max_requests=self._max_stream_requests,
        )

    async def _infer(
        self,
        received: Received,
        call: Call,
        record: RequestRecord,
        reservation: Reservation,
        parameters: Mapping[str, bool],
    ) -> Parts:
        if REQUEST_ID_PATTERN.fullmatch(received.id):
            record.request_id = received.id
        name = received.message.model_name[: MAX_NAME + 1]
        record.model = self._service.label(name)
        info = self._service.model(name)
        context = call.request_context(record)
        infer = await self._infer_codec.decode(received, info.name, call.client)
        decoded = decode(
            infer,
            info,
            context,
            max_values=self._max_answer_bytes // 4,
            transit=Transit(reservation, BYTES_PER_VALUE),
        )
        record.sequences = count(decoded.request.input)
        result = await self._encode(decoded)
        record.tokens = result.tokens
        return await self._infer_codec.render(result, decoded, received, parameters, call.client)

    async def _encode(self, decoded: Decoded) -> EncodeResult:
        try:
            return await self._service.encode(decoded.request)
        except ServiceError as error:
            error.field = decoded.renamed(error.field)
            raise
