"""One call of ModelStreamInfer: ids are the client's to match, and may repeat or be empty."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from electra_serve.api.grpc.call import Call
from electra_serve.api.grpc.codec import Codec
from electra_serve.api.grpc.oip.codec import InferCodec, Received
from electra_serve.api.grpc.oip.decode import to_parameters
from electra_serve.api.grpc.oip.render import FINAL, NO_PARAMETERS, error_in_stream, in_stream
from electra_serve.api.grpc.render import Parts
from electra_serve.api.grpc.stream import RequestStream
from electra_serve.api.grpc.transfer import Transfer
from electra_serve.errors import ServiceError
from electra_serve.observability.requests import RequestObserver, RequestRecord, choose_request_id
from electra_serve.serving.transit_budget import Reservation

WANTS_FINAL: Final = "triton_enable_empty_final_response"

Infer: TypeAlias = Callable[[Received, RequestRecord, Reservation, Mapping[str, bool]], Awaitable[Parts]]


class InferStream(RequestStream):
    """Serves a call of ModelStreamInfer."""

    def __init__(
        self,
        infer: Infer,
        observer: RequestObserver,
        call: Call,
        codec: Codec,
        infer_codec: InferCodec,
        transfer: Transfer,
        *,
        max_requests: int,
    ) -> None:
        super().__init__(call, transfer, max_requests=max_requests)
        self._infer = infer
        self._observer = observer
        self._codec = codec
        self._infer_codec = infer_codec

    async def _response(self, data: bytes, reservation: Reservation) -> bytes:
        record, received = RequestRecord(choose_request_id(None)), None
        try:
            with self._observer.request("ModelStreamInfer", record.request_id, self._call.metadata) as record:
                received = await self._infer_codec.parse(data, self._call.client)
                del data  # the parsed message has a copy
                response = await self._infer(received, record, reservation, _parameters(received))
                return await self._codec.join(in_stream(response), self._call.client)
        except ServiceError as error:
            return error_in_stream(error, "" if received is None else received.id, record.model, record.request_id)


def _parameters(received: Received) -> Mapping[str, bool]:
    """Returns the parameters of a response: each response is the last one of its request."""
    asked = to_parameters(received.message.parameters, (WANTS_FINAL,)).get(WANTS_FINAL) is True
    return {FINAL: True} if asked else NO_PARAMETERS
