"""Clients over gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, cast

import grpc

from electra_serve.client import grpc_codec
from electra_serve.client.base import DEFAULT_RETRY, DEFAULT_TIMEOUT_S, AsyncClient, SyncClient
from electra_serve.client.request import ClassifyOptions, EmbedQuery, Query, RerankQuery
from electra_serve.client.response import ClassifyResponse, EmbedResponse, EncodeResponse, ModelInfo, RerankResponse
from electra_serve.client.retry import RetryPolicy
from electra_serve.client.tls import Tls
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1 import encoder_pb2_grpc

OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),  # the server limits responses
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # `RetryPolicy` decides
)


class GrpcElectraClient(SyncClient):
    """Blocking gRPC client.

    Args:
        target: Address of the service, such as `127.0.0.1:50051`.
        timeout_s: Default of a call's seconds, retries included.
        retry: Policy of retries.
        api_key: Sent with each call.
        tls: Certificates; None for no TLS.
        channel: Replaces the channel to `target`, for interceptors; closed with this client. Set its
            `grpc.max_receive_message_length`: by default gRPC rejects responses above 4 MB.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy = DEFAULT_RETRY,
        api_key: str | None = None,
        tls: Tls | None = None,
        channel: grpc.Channel | None = None,
    ) -> None:
        super().__init__(timeout_s, retry)
        self._key = grpc_codec.credentials(api_key)
        self._channel = channel or _channel(target, tls)
        self._stub = encoder_pb2_grpc.EncoderServiceStub(self._channel)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _encode(self, query: Query, timeout_s: float) -> EncodeResponse:
        with _translated():
            response = self._stub.Encode(
                grpc_codec.to_request(query),
                timeout=timeout_s,
                metadata=grpc_codec.to_metadata(query) + self._key,
            )
        return grpc_codec.to_response(response)

    def _classify(self, query: Query, options: ClassifyOptions, timeout_s: float) -> ClassifyResponse:
        with _translated():
            response = self._stub.Classify(
                grpc_codec.to_classify_request(query, options),
                timeout=timeout_s,
                metadata=grpc_codec.to_metadata(query) + self._key,
            )
        return grpc_codec.to_classify_response(response)

    def _embed(self, query: EmbedQuery, timeout_s: float) -> EmbedResponse:
        with _translated():
            response = self._stub.Embed(
                grpc_codec.to_embed_request(query),
                timeout=timeout_s,
                metadata=grpc_codec.to_metadata(query) + self._key,
            )
        return grpc_codec.to_embed_response(response)

    def _rerank(self, query: RerankQuery, timeout_s: float) -> RerankResponse:
        with _translated():
            response = self._stub.Rerank(
                grpc_codec.to_rerank_request(query),
                timeout=timeout_s,
                metadata=grpc_codec.to_metadata(query) + self._key,
            )
        return grpc_codec.to_rerank_response(response)

    def _models(self, timeout_s: float) -> tuple[ModelInfo, ...]:
        with _translated():
            response = self._stub.ListModels(pb.ListModelsRequest(), timeout=timeout_s, metadata=self._key)
        return tuple(grpc_codec.to_model(info) for info in response.models)


class AsyncGrpcElectraClient(AsyncClient):
    """Asynchronous gRPC client; create and use it on one event loop.

    Args:
        target: Address of the service, such as `127.0.0.1:50051`.
        timeout_s: Default of a call's seconds, retries included.
        retry: Policy of retries.
        api_key: Sent with each call.
        tls: Certificates; None for no TLS.
        channel: Replaces the channel to `target`, for interceptors; closed with this client. Set its
            `grpc.max_receive_message_length`: by default gRPC rejects responses above 4 MB.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy = DEFAULT_RETRY,
        api_key: str | None = None,
        tls: Tls | None = None,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        super().__init__(timeout_s, retry)
        self._key = grpc_codec.credentials(api_key)
        self._channel = channel or _aio_channel(target, tls)
        self._stub = encoder_pb2_grpc.EncoderServiceStub(self._channel)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def _encode(self, query: Query, timeout_s: float) -> EncodeResponse:
        with _translated():
            response = await self._stub.Encode(
                grpc_codec.to_request(query),
                timeout=timeout_s,
                metadata=grpc_codec.to_metadata(query) + self._key,
            )
        return grpc_codec.to_response(response)

    async def _classify(self, query: Query, options: ClassifyOptions, timeout_s: float) -> ClassifyResponse:
        with _translated():
            response = await self._stub.Classify(
                grpc_codec.to_classify_request(query, options),
                timeout=timeout_s,
                metadata=grpc_codec.to_metadata(query) + self._key,
            )
        return grpc_codec.to_classify_response(response)

    async def _embed(self, query: EmbedQuery, timeout_s: float) -> EmbedResponse:
        with _translated():
            response = await self._stub.Embed(
                grpc_codec.to_embed_request(query),
                timeout=timeout_s,
                metadata=grpc_codec.to_metadata(query) + self._key,
            )
        return grpc_codec.to_embed_response(response)

    async def _rerank(self, query: RerankQuery, timeout_s: float) -> RerankResponse:
        with _translated():
            response = await self._stub.Rerank(
                grpc_codec.to_rerank_request(query),
                timeout=timeout_s,
                metadata=grpc_codec.to_metadata(query) + self._key,
            )
        return grpc_codec.to_rerank_response(response)

    async def _models(self, timeout_s: float) -> tuple[ModelInfo, ...]:
        with _translated():
            response = await self._stub.ListModels(pb.ListModelsRequest(), timeout=timeout_s, metadata=self._key)
        return tuple(grpc_codec.to_model(info) for info in response.models)


def _channel(target: str, tls: Tls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(target, OPTIONS)
    return grpc.secure_channel(target, tls.credentials(), OPTIONS)


def _aio_channel(target: str, tls: Tls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, OPTIONS)
    return grpc.aio.secure_channel(target, tls.credentials(), OPTIONS)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
        raise grpc_codec.to_error(error.code(), error.details(), dict(metadata)) from error
