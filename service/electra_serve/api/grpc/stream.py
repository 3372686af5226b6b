"""One call with many requests in flight, with responses in the order they finish.

A slot and the request's bytes are reserved before the next request is read, and released after its response is sent.
So flow control stops a client that sends faster than the model computes, or does not read. A client that does not
accept a response in time is disconnected. All tasks are in the `TaskGroup` of the call, and are cancelled with it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from electra_serve.api.grpc import status
from electra_serve.api.grpc.call import Call
from electra_serve.api.grpc.codec import Codec
from electra_serve.api.grpc.parsing import reject_unknown_fields
from electra_serve.api.grpc.render import Parts, in_stream
from electra_serve.api.grpc.transfer import COPIES, Transfer
from electra_serve.errors import Cancelled, MalformedRequest, Overloaded, ServiceError
from electra_serve.observability.requests import REQUEST_ID_PATTERN, RequestObserver, RequestRecord, choose_request_id
from electra_serve.observability.tracing import NO_CARRIER, Carrier
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.serving.transit_budget import RECLAIM_AFTER_S, Reservation

Encode: TypeAlias = Callable[[pb.EncodeRequest, int, RequestRecord, Reservation], Awaitable[Parts]]


class RequestStream(ABC):
    """Serves the requests of one call."""

    def __init__(self, call: Call, transfer: Transfer, *, max_requests: int) -> None:
        self._call = call
        self._transfer = transfer
        self._slots = asyncio.Semaphore(max_requests)
        self._writing = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._reclaimed = False

    @abstractmethod
    async def _response(self, data: bytes, reservation: Reservation) -> bytes:
        """Returns the response to one request, which may be an error."""

    async def run(self, receiving: Reservation) -> bool:
        """Serves all requests of the client; returns False if `drain` stopped it before their end.

        `receiving` is the reservation for the next message, and may be reclaimed while none arrives.

        Raises:
            Cancelled: The client does not read its responses.
            Overloaded: The reservation was reclaimed; each request that was read has a response.
        """
        try:
            ended = await self._work(receiving)
        except* Cancelled as group:
            raise Cancelled(str(group.exceptions[0])) from group
        if self._reclaimed:
            raise Overloaded(
                "the stream waited for its next request while others needed its memory; open it again",
                retry_after_s=RECLAIM_AFTER_S,
            )
        return ended

    async def _work(self, receiving: Reservation) -> bool:
        async with asyncio.TaskGroup() as tasks:
            self._reader = tasks.create_task(self._read(receiving, tasks))
        return not self._reader.cancelled()

    def drain(self) -> None:
        """Stops reading; requests that were read are still served."""
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self, receiving: Reservation, tasks: asyncio.TaskGroup) -> None:
        def reclaim() -> None:
            self._reclaimed = True
            receiving.release()
            self.drain()

        await self._slots.acquire()
        budget = self._transfer.budget
        while True:
            with budget.reclaimable(receiving, reclaim):
                data = await self._transfer.read_next(self._call.context)
            if data is None:
                return
            reservation = await budget.acquire(self._call.client, COPIES * len(data), timeout_s=None)
            reservation.release_after(tasks.create_task(self._serve(data, reservation)))
            await self._slots.acquire()

    async def _serve(self, data: bytes, reservation: Reservation) -> None:
        try:
            response = await self._response(data, reservation)
            async with self._writing:  # gRPC accepts one write at a time
                await self._transfer.send(self._call.context, response)
        finally:
            self._slots.release()


class EncodeStream(RequestStream):
    """Serves a call of EncodeStream, whose requests have ids of their own."""

    def __init__(
        self,
        encode: Encode,
        observer: RequestObserver,
        call: Call,
        codec: Codec,
        transfer: Transfer,
        *,
        max_requests: int,
        carrier: Carrier = NO_CARRIER,
    ) -> None:
        super().__init__(call, transfer, max_requests=max_requests)
        self._encode = encode
        self._observer = observer
        self._codec = codec
        self._carrier = carrier
        self._in_flight: set[str] = set()

    async def _response(self, data: bytes, reservation: Reservation) -> bytes:
        made, claimed = choose_request_id(None), ""
        try:
            with self._observer.request("EncodeStream", made, self._carrier) as record:
                message = (await self._codec.parse(pb.EncodeStreamRequest, data, self._call.client)).request
                reject_unknown_fields(message, "request")
                claimed = record.request_id = self._claim(message.request_id)
                response = await self._encode(message, len(data), record, reservation)
                return await self._codec.join(in_stream(response, claimed), self._call.client)
        except ServiceError as error:
            failed = status.from_error(error, claimed or made)
            return pb.EncodeStreamResponse(request_id=claimed, error=failed).SerializeToString()
        finally:
            self._in_flight.discard(claimed)

    def _claim(self, request_id: str) -> str:
        if not REQUEST_ID_PATTERN.fullmatch(request_id):
            raise MalformedRequest(
                "in a stream, `request_id` must be 1 to 128 of A-Z a-z 0-9 . _ : -; got another", field="request_id"
            )
        if request_id in self._in_flight:
            raise MalformedRequest(
                f"`request_id` must differ from those in flight; got {request_id} again", field="request_id"
            )
        self._in_flight.add(request_id)
        return request_id
