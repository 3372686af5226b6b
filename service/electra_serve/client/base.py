"""Base of the clients of both transports: public methods, time limit and attempts.

A transport implements `_encode`, `_classify`, `_embed`, `_rerank` and `_models`, which send once, and `close`.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Self, TypeVar

from electra_serve.client.request import (
    ClassifyOptions,
    EmbedQuery,
    Priority,
    Query,
    RerankQuery,
    Rows,
    Texts,
    text_or_pairs,
)
from electra_serve.client.response import ClassifyResponse, EmbedResponse, EncodeResponse, ModelInfo, RerankResponse
from electra_serve.client.retry import RetryPolicy
from electra_serve.errors import DeadlineExceeded, ElectraServeError, InvalidInput

T = TypeVar("T")

DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_RETRY: Final = RetryPolicy()


class Attempts:
    """Attempts of one call, waits included, within `timeout_s`; raises `InvalidInput` unless that is finite."""

    def __init__(self, retry: RetryPolicy, timeout_s: float) -> None:
        if not math.isfinite(timeout_s):
            raise InvalidInput(f"`timeout_s` must be a finite number; got {timeout_s}", field="timeout_s")
        self._retry = retry
        self._until = time.monotonic() + timeout_s
        self._attempt = 0

    def next(self) -> float:
        """Starts an attempt and returns the seconds that are left; raises `DeadlineExceeded` if there are none."""
        self._attempt += 1
        remaining_s = self._remaining_s()
        if remaining_s <= 0:
            raise DeadlineExceeded("the time limit passed before the request was sent")
        return remaining_s

    def wait_s(self, error: ElectraServeError) -> float:
        """Returns the seconds until the next attempt; raises `error` if there is none."""
        wait_s = self._retry.wait_s(
            error,
            attempt=self._attempt,
            remaining_s=self._remaining_s(),
            chance=random.random(),  # noqa: S311 - spreads clients, no security
        )
        if wait_s is None:
            raise error
        return wait_s

    def _remaining_s(self) -> float:
        return self._until - time.monotonic()


class SyncClient(ABC):
    """Blocking client; threads may share it."""

    def __init__(self, timeout_s: float, retry: RetryPolicy) -> None:
        self._timeout_s = timeout_s
        self._retry = retry

    def encode(
        self,
        *,
        token_ids: Rows | None = None,
        segment_ids: Rows | None = None,
        padding_mask: Rows | None = None,
        text: Texts | None = None,
        model: str | None = None,
        outputs: Iterable[str] = (),
        truncate: bool = False,
        truncation: str | None = None,
        timeout_s: float | None = None,
        priority: Priority = "normal",
    ) -> EncodeResponse:
        """Encodes sequences of ids, or texts.

        Args:
            token_ids: B sequences of integer ids, which may differ in length, or a (B, T) array.
            segment_ids: Likewise; default all 0.
            padding_mask: Likewise, 1 or true for ids that count; default all 1.
            text: A text, or a sequence of texts and of pairs of texts, instead of ids.
            model: Name of a served model; optional if only one is served.
            outputs: `sequence_output`, `pooled_output`, `cls_output`, `mean_output`, `embedding`, and of a head
                `logits` or `token_logits`; default the first two.
            truncate: Truncates sequences that are too long for the model; otherwise they are rejected.
            truncation: Rule: `right`, `left`, `longest_first` (the default of `truncate`), `only_first`, `only_second`,
                or `none` to reject them.
            timeout_s: Seconds for the whole call, retries included; default the client's.
            priority: `high`, `normal` or `low`: order in the server's queue.

        Raises:
            ServiceError: The server rejected the request or failed; see `electra_serve.errors`.
            TransportError: The server could not be reached.
        """
        query = Query.of(
            token_ids=token_ids,
            segment_ids=segment_ids,
            padding_mask=padding_mask,
            text=text,
            model=model,
            outputs=outputs,
            truncate=truncate,
            truncation=truncation,
            priority=priority,
        )
        return self._attempt(lambda remaining_s: self._encode(query, remaining_s), timeout_s)

    def classify(
        self,
        *,
        token_ids: Rows | None = None,
        segment_ids: Rows | None = None,
        padding_mask: Rows | None = None,
        text: Texts | None = None,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        model: str | None = None,
        top_k: int | None = None,
        raw_scores: bool = False,
        aggregation: str | None = None,
        stride: int | None = None,
        max_answer_length: int | None = None,
        truncate: bool = False,
        truncation: str | None = None,
        timeout_s: float | None = None,
        priority: Priority = "normal",
    ) -> ClassifyResponse:
        """Classifies sequences with the head of a model.

        Args:
            token_ids: As in `encode`.
            segment_ids: Likewise; for question answering 1 for the context.
            padding_mask: As in `encode`.
            text: As in `encode`; a pair for a cross-encoder.
            question: A question, or one for each context, for a model with a `question_answering` head.
            context: A context, or one for each question. Long ones are cut into windows.
            model: Name of a served model with a head; optional if only one is served.
            top_k: Most labels, or answer spans, of each sequence; default all labels, and one answer span.
            raw_scores: Returns logits instead of scores.
            aggregation: Rule that joins labeled tokens to spans: `none`, `first` or `simple`, the default.
            stride: Cuts long texts into windows that share so many ids.
            max_answer_length: Most ids of an answer span; default 15.
            truncate: As in `encode`.
            truncation: As in `encode`.
            timeout_s: As in `encode`.
            priority: As in `encode`.

        Raises:
            ServiceError: The server rejected the request or failed; see `electra_serve.errors`.
            TransportError: The server could not be reached.
        """
        query = Query.of(
            token_ids=token_ids,
            segment_ids=segment_ids,
            padding_mask=padding_mask,
            text=text_or_pairs(text, question, context),
            model=model,
            truncate=truncate,
            truncation=truncation,
            priority=priority,
        )
        options = ClassifyOptions.of(
            top_k=top_k,
            raw_scores=raw_scores,
            aggregation=aggregation,
            stride=stride,
            max_answer_length=max_answer_length,
        )
        return self._attempt(lambda remaining_s: self._classify(query, options, remaining_s), timeout_s)

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str | None = None,
        prompt_name: str | None = None,
        input_type: str | None = None,
        dimensions: int | None = None,
        timeout_s: float | None = None,
        priority: Priority = "normal",
    ) -> EmbedResponse:
        """Computes one vector of unit length for each text; long texts are truncated.

        Args:
            texts: A text, or up to 2,048 texts, by the server's default.
            model: Name of a served model; optional if only one is served.
            prompt_name: Name of one of the model's prompts, which precedes each text.
            input_type: `query` or `document`: selects a prompt if the model has one.
            dimensions: Length of the vectors, if the model's settings allow others than its own.
            timeout_s: As in `encode`.
            priority: As in `encode`.

        Raises:
            ServiceError: The server rejected the request or failed; see `electra_serve.errors`.
            TransportError: The server could not be reached.
        """
        query = EmbedQuery.of(
            texts,
            model=model,
            prompt_name=prompt_name,
            input_type=input_type,
            dimensions=dimensions,
            priority=priority,
        )
        return self._attempt(lambda remaining_s: self._embed(query, remaining_s), timeout_s)

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        raw_scores: bool = False,
        timeout_s: float | None = None,
        priority: Priority = "normal",
    ) -> RerankResponse:
        """Scores documents for a query with a cross-encoder; long documents are truncated.

        Args:
            query: The query.
            documents: Up to 1,000 documents, by the server's default.
            model: Name of a served cross-encoder; optional if only one model is served.
            top_n: Most documents in the response, the best ones; default all.
            raw_scores: Returns logits instead of their sigmoid.
            timeout_s: As in `encode`.
            priority: As in `encode`.

        Raises:
            ServiceError: The server rejected the request or failed; see `electra_serve.errors`.
            TransportError: The server could not be reached.
        """
        sent = RerankQuery.of(query, documents, model=model, top_n=top_n, raw_scores=raw_scores, priority=priority)
        return self._attempt(lambda remaining_s: self._rerank(sent, remaining_s), timeout_s)

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelInfo, ...]:
        """Describes the server's models, in any state; raises as `encode`."""
        return self._attempt(self._models, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Closes the connections."""

    @abstractmethod
    def _encode(self, query: Query, timeout_s: float) -> EncodeResponse: ...

    @abstractmethod
    def _classify(self, query: Query, options: ClassifyOptions, timeout_s: float) -> ClassifyResponse: ...

    @abstractmethod
    def _embed(self, query: EmbedQuery, timeout_s: float) -> EmbedResponse: ...

    @abstractmethod
    def _rerank(self, query: RerankQuery, timeout_s: float) -> RerankResponse: ...

    @abstractmethod
    def _models(self, timeout_s: float) -> tuple[ModelInfo, ...]: ...

    def _attempt(self, send: Callable[[float], T], timeout_s: float | None) -> T:
        attempts = Attempts(self._retry, self._timeout_s if timeout_s is None else timeout_s)
        while True:
            try:
                return send(attempts.next())
            except ElectraServeError as error:
                wait_s = attempts.wait_s(error)
            time.sleep(wait_s)


class AsyncClient(ABC):
    """Asynchronous client; the server drops a canceled call."""

    def __init__(self, timeout_s: float, retry: RetryPolicy) -> None:
        self._timeout_s = timeout_s
        self._retry = retry

    async def encode(
        self,
        *,
        token_ids: Rows | None = None,
        segment_ids: Rows | None = None,
        padding_mask: Rows | None = None,
        text: Texts | None = None,
        model: str | None = None,
        outputs: Iterable[str] = (),
        truncate: bool = False,
        truncation: str | None = None,
        timeout_s: float | None = None,
        priority: Priority = "normal",
    ) -> EncodeResponse:
        """Encodes sequences of ids, or texts; as `SyncClient.encode`."""
        query = Query.of(
            token_ids=token_ids,
            segment_ids=segment_ids,
            padding_mask=padding_mask,
            text=text,
            model=model,
            outputs=outputs,
            truncate=truncate,
            truncation=truncation,
            priority=priority,
        )
        return await self._attempt(lambda remaining_s: self._encode(query, remaining_s), timeout_s)

    async def classify(
        self,
        *,
        token_ids: Rows | None = None,
        segment_ids: Rows | None = None,
        padding_mask: Rows | None = None,
        text: Texts | None = None,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        model: str | None = None,
        top_k: int | None = None,
        raw_scores: bool = False,
        aggregation: str | None = None,
        stride: int | None = None,
        max_answer_length: int | None = None,
        truncate: bool = False,
        truncation: str | None = None,
        timeout_s: float | None = None,
        priority: Priority = "normal",
    ) -> ClassifyResponse:
        """Classifies sequences with the head of a model; as `SyncClient.classify`."""
        query = Query.of(
            token_ids=token_ids,
            segment_ids=segment_ids,
            padding_mask=padding_mask,
            text=text_or_pairs(text, question, context),
            model=model,
            truncate=truncate,
            truncation=truncation,
            priority=priority,
        )
        options = ClassifyOptions.of(
            top_k=top_k,
            raw_scores=raw_scores,
            aggregation=aggregation,
            stride=stride,
            max_answer_length=max_answer_length,
        )
        return await self._attempt(lambda remaining_s: self._classify(query, options, remaining_s), timeout_s)

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str | None = None,
        prompt_name: str | None = None,
        input_type: str | None = None,
        dimensions: int | None = None,
        timeout_s: float | None = None,
        priority: Priority = "normal",
    ) -> EmbedResponse:
        """Computes one vector for each text; as `SyncClient.embed`."""
        query = EmbedQuery.of(
            texts,
            model=model,
            prompt_name=prompt_name,
            input_type=input_type,
            dimensions=dimensions,
            priority=priority,
        )
        return await self._attempt(lambda remaining_s: self._embed(query, remaining_s), timeout_s)

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        raw_scores: bool = False,
        timeout_s: float | None = None,
        priority: Priority = "normal",
    ) -> RerankResponse:
        """Scores documents for a query with a cross-encoder; as `SyncClient.rerank`."""
        sent = RerankQuery.of(query, documents, model=model, top_n=top_n, raw_scores=raw_scores, priority=priority)
        return await self._attempt(lambda remaining_s: self._rerank(sent, remaining_s), timeout_s)

    async def models(self, *, timeout_s: float | None = None) -> tuple[ModelInfo, ...]:
        """Describes the server's models, in any state; as `SyncClient.models`."""
        return await self._attempt(self._models, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def close(self) -> None:
        """Closes the connections."""

    @abstractmethod
    async def _encode(self, query: Query, timeout_s: float) -> EncodeResponse: ...

    @abstractmethod
    async def _classify(self, query: Query, options: ClassifyOptions, timeout_s: float) -> ClassifyResponse: ...

    @abstractmethod
    async def _embed(self, query: EmbedQuery, timeout_s: float) -> EmbedResponse: ...

    @abstractmethod
    async def _rerank(self, query: RerankQuery, timeout_s: float) -> RerankResponse: ...

    @abstractmethod
    async def _models(self, timeout_s: float) -> tuple[ModelInfo, ...]: ...

    async def _attempt(self, send: Callable[[float], Awaitable[T]], timeout_s: float | None) -> T:
        attempts = Attempts(self._retry, self._timeout_s if timeout_s is None else timeout_s)
        while True:
            try:
                return await send(attempts.next())
            except ElectraServeError as error:
                wait_s = attempts.wait_s(error)
            await asyncio.sleep(wait_s)
