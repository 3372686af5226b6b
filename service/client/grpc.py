"""Clients over gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, cast

import grpc

from service.api.grpc.stubs.electra.v1 import encoder_pb2 as pb
from service.api.grpc.stubs.electra.v1 import encoder_pb2_grpc
from service.client import grpc_wire
from service.client.answer import Encoded, ServedModel
from service.client.base import DEFAULT_RETRY, DEFAULT_TIMEOUT_S, AsyncClient, SyncClient
from service.client.query import Query
from service.client.retry import RetryPolicy

OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),  # how large an answer may be is the server's to say
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # `RetryPolicy` decides
)


class GrpcElectraClient(SyncClient):
    """A blocking gRPC client.

    Args:
        target: Where the service is, such as `127.0.0.1:50051`.
        timeout_s: Seconds that a call may take, retries included, where it does not say otherwise.
        retry: When to try again.
        channel: What to send with, for certificates or interceptors, instead of a plain one to `target`;
            closed with this client.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy = DEFAULT_RETRY,
        channel: grpc.Channel | None = None,
    ) -> None:
        super().__init__(timeout_s, retry)
        self._channel = channel or grpc.insecure_channel(target, OPTIONS)
        self._stub = encoder_pb2_grpc.EncoderServiceStub(self._channel)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _encode(self, query: Query, timeout_s: float) -> Encoded:
        with _translated():
            response = self._stub.Encode(
                grpc_wire.to_request(query), timeout=timeout_s, metadata=grpc_wire.to_metadata(query)
            )
        return grpc_wire.to_encoded(response)

    def _models(self, timeout_s: float) -> tuple[ServedModel, ...]:
        with _translated():
            response = self._stub.ListModels(pb.ListModelsRequest(), timeout=timeout_s)
        return tuple(grpc_wire.to_model(info) for info in response.models)


class AsyncGrpcElectraClient(AsyncClient):
    """A gRPC client that is awaited. Made and used on one event loop.

    Args:
        target: Where the service is, such as `127.0.0.1:50051`.
        timeout_s: Seconds that a call may take, retries included, where it does not say otherwise.
        retry: When to try again.
        channel: What to send with, for certificates or interceptors, instead of a plain one to `target`;
            closed with this client.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy = DEFAULT_RETRY,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        super().__init__(timeout_s, retry)
        self._channel = channel or grpc.aio.insecure_channel(target, OPTIONS)
        self._stub = encoder_pb2_grpc.EncoderServiceStub(self._channel)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def _encode(self, query: Query, timeout_s: float) -> Encoded:
        with _translated():
            response = await self._stub.Encode(
                grpc_wire.to_request(query), timeout=timeout_s, metadata=grpc_wire.to_metadata(query)
            )
        return grpc_wire.to_encoded(response)

    async def _models(self, timeout_s: float) -> tuple[ServedModel, ...]:
        with _translated():
            response = await self._stub.ListModels(pb.ListModelsRequest(), timeout=timeout_s)
        return tuple(grpc_wire.to_model(info) for info in response.models)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
        raise grpc_wire.to_error(error.code(), error.details(), dict(metadata)) from error
