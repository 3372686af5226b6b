"""Clients over REST; numbers are sent as base64 of their bytes, which is exact and faster than JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from electra_serve.client import rest_codec
from electra_serve.client.base import DEFAULT_RETRY, DEFAULT_TIMEOUT_S, AsyncClient, SyncClient
from electra_serve.client.request import AnyQuery, ClassifyOptions, EmbedQuery, Query, RerankQuery
from electra_serve.client.response import ClassifyResponse, EmbedResponse, EncodeResponse, ModelInfo, RerankResponse
from electra_serve.client.retry import RetryPolicy
from electra_serve.client.time_limit import time_limit
from electra_serve.client.tls import Tls
from electra_serve.errors import DeadlineExceeded, TransportError


class ElectraClient(SyncClient):
    """Blocking REST client.

    Args:
        base_url: Address of the service, such as `http://127.0.0.1:8080`.
        timeout_s: Default of a call's seconds, retries included.
        retry: Policy of retries.
        api_key: Sent with each request.
        tls: Certificates, if `base_url` is `https`.
        http: Replaces the HTTP client made with `tls`, for proxies or headers; closed with this client.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy = DEFAULT_RETRY,
        api_key: str | None = None,
        tls: Tls | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        super().__init__(timeout_s, retry)
        self._base_url = base_url.rstrip("/")
        self._credentials = rest_codec.credentials(api_key)
        self._http = http or httpx.Client(verify=True if tls is None else tls.context())

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _encode(self, query: Query, timeout_s: float) -> EncodeResponse:
        return rest_codec.to_response(self._post("/v1/encode", query, rest_codec.body(query), timeout_s))

    def _classify(self, query: Query, options: ClassifyOptions, timeout_s: float) -> ClassifyResponse:
        content = rest_codec.classify_body(query, options)
        return rest_codec.to_classify_response(self._post("/v1/classify", query, content, timeout_s))

    def _embed(self, query: EmbedQuery, timeout_s: float) -> EmbedResponse:
        content = rest_codec.embed_body(query)
        return rest_codec.to_embed_response(self._post("/v1/embeddings", query, content, timeout_s))

    def _rerank(self, query: RerankQuery, timeout_s: float) -> RerankResponse:
        content = rest_codec.rerank_body(query)
        return rest_codec.to_rerank_response(self._post("/v1/rerank", query, content, timeout_s))

    def _post(self, path: str, query: AnyQuery, content: bytes, timeout_s: float) -> httpx.Response:
        headers = rest_codec.headers(query, timeout_s) | self._credentials
        with _translated(timeout_s), time_limit(timeout_s) as extensions:
            return self._http.post(f"{self._base_url}{path}", content=content, headers=headers, extensions=extensions)

    def _models(self, timeout_s: float) -> tuple[ModelInfo, ...]:
        with _translated(timeout_s), time_limit(timeout_s) as extensions:
            response = self._http.get(f"{self._base_url}/v1/models", headers=self._credentials, extensions=extensions)
        return rest_codec.to_models(response)


class AsyncElectraClient(AsyncClient):
    """Asynchronous REST client.

    Args:
        base_url: Address of the service, such as `http://127.0.0.1:8080`.
        timeout_s: Default of a call's seconds, retries included.
        retry: Policy of retries.
        api_key: Sent with each request.
        tls: Certificates, if `base_url` is `https`.
        http: Replaces the HTTP client made with `tls`, for proxies or headers; closed with this client.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy = DEFAULT_RETRY,
        api_key: str | None = None,
        tls: Tls | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(timeout_s, retry)
        self._base_url = base_url.rstrip("/")
        self._credentials = rest_codec.credentials(api_key)
        self._http = http or httpx.AsyncClient(verify=True if tls is None else tls.context())

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _encode(self, query: Query, timeout_s: float) -> EncodeResponse:
        return rest_codec.to_response(await self._post("/v1/encode", query, rest_codec.body(query), timeout_s))

    async def _classify(self, query: Query, options: ClassifyOptions, timeout_s: float) -> ClassifyResponse:
        content = rest_codec.classify_body(query, options)
        return rest_codec.to_classify_response(await self._post("/v1/classify", query, content, timeout_s))

    async def _embed(self, query: EmbedQuery, timeout_s: float) -> EmbedResponse:
        content = rest_codec.embed_body(query)
        return rest_codec.to_embed_response(await self._post("/v1/embeddings", query, content, timeout_s))

    async def _rerank(self, query: RerankQuery, timeout_s: float) -> RerankResponse:
        content = rest_codec.rerank_body(query)
        return rest_codec.to_rerank_response(await self._post("/v1/rerank", query, content, timeout_s))

    async def _post(self, path: str, query: AnyQuery, content: bytes, timeout_s: float) -> httpx.Response:
        headers = rest_codec.headers(query, timeout_s) | self._credentials
        with _translated(timeout_s):
            async with asyncio.timeout(timeout_s):
                return await self._http.post(f"{self._base_url}{path}", content=content, headers=headers, timeout=None)

    async def _models(self, timeout_s: float) -> tuple[ModelInfo, ...]:
        with _translated(timeout_s):
            async with asyncio.timeout(timeout_s):
                response = await self._http.get(f"{self._base_url}/v1/models", headers=self._credentials, timeout=None)
        return rest_codec.to_models(response)


@contextmanager
def _translated(timeout_s: float) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise TransportError(f"cannot connect to the server: no connection within {timeout_s:.3g} s") from error
    except (httpx.TimeoutException, TimeoutError) as error:
        raise DeadlineExceeded(f"cannot get a response: none within {timeout_s:.3g} s") from error
    except httpx.TransportError as error:
        raise TransportError(f"cannot reach the server over HTTP: {type(error).__name__}: {error}") from error
