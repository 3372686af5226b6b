"""What clients of every transport share: the public methods, the time limit and the attempts.

A transport adds three methods that send once: `_encode`, `_models` and `close`.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Self, TypeVar

from electra_serve.client.request import Priority, Query, Rows, Texts
from electra_serve.client.response import EncodeResponse, ModelInfo
from electra_serve.client.retry import RetryPolicy
from electra_serve.errors import DeadlineExceeded, ElectraServeError, InvalidInput

T = TypeVar("T")

DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_RETRY: Final = RetryPolicy()


class Attempts:
    """One call's attempts, within one time limit.

    Args:
        retry: When to try again.
        timeout_s: Seconds for all attempts and the waits between them.

    Raises:
        InvalidInput: `timeout_s` is not finite.
    """

    def __init__(self, retry: RetryPolicy, timeout_s: float) -> None:
        if not math.isfinite(timeout_s):
            raise InvalidInput(f"`timeout_s` must be a finite number; got {timeout_s}", field="timeout_s")
        self._retry = retry
        self._until = time.monotonic() + timeout_s
        self._attempt = 0

    def next(self) -> float:
        """Begins an attempt.

        Returns:
            Seconds that it may take.

        Raises:
            DeadlineExceeded: None are left.
        """
        self._attempt += 1
        remaining_s = self._remaining_s()
        if remaining_s <= 0:
            raise DeadlineExceeded("the time limit passed before the request was sent")
        return remaining_s

    def wait_s(self, error: ElectraServeError) -> float:
        """Seconds to wait before the next attempt; raises `error` where there is none."""
        wait_s = self._retry.wait_s(
            error,
            attempt=self._attempt,
            remaining_s=self._remaining_s(),
            chance=random.random(),  # noqa: S311 - spreads clients, guards nothing
        )
        if wait_s is None:
            raise error
        return wait_s

    def _remaining_s(self) -> float:
        return self._until - time.monotonic()


class SyncClient(ABC):
    """A client that blocks. Threads may share one.

    Args:
        timeout_s: Seconds that a call may take, retries included, where it does not say otherwise.
        retry: When to try again.
    """

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
            token_ids: Sequences of ids, which may differ in length, or a (B, T) array.
            segment_ids: Likewise; default all 0.
            padding_mask: Likewise, 1 or true where an id counts; default all 1.
            text: A text, or a sequence of texts and of pairs of texts, instead of ids.
            model: A served model's name; not needed where just one is served.
            outputs: `sequence_output`, `pooled_output`, `cls_output`, `mean_output`; default the first two.
            truncate: Cut what is too long for the model, instead of having it refused.
            truncation: How to cut it: `right`, `left`, `longest_first` (what `truncate` alone means), `only_first` or
                `only_second`; `none` has it refused.
            timeout_s: Seconds for the whole call; default the client's.
            priority: Which requests leave the server's queue first.

        Raises:
            ServiceError: As raised by the service; see `electra_serve.errors`.
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

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelInfo, ...]:
        """The models of the server, in any state.

        Raises:
            ServiceError: As raised by the service.
            TransportError: The server could not be reached.
        """
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
    """A client that is awaited. Cancelling a call withdraws it from the server.

    Args:
        timeout_s: Seconds that a call may take, retries included, where it does not say otherwise.
        retry: When to try again.
    """

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
        """Encodes sequences of ids, or texts: arguments, answer and errors as of `SyncClient.encode`."""
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

    async def models(self, *, timeout_s: float | None = None) -> tuple[ModelInfo, ...]:
        """The models of the server, in any state; errors as of `SyncClient.models`."""
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
    async def _models(self, timeout_s: float) -> tuple[ModelInfo, ...]: ...

    async def _attempt(self, send: Callable[[float], Awaitable[T]], timeout_s: float | None) -> T:
        attempts = Attempts(self._retry, self._timeout_s if timeout_s is None else timeout_s)
        while True:
            try:
                return await send(attempts.next())
            except ElectraServeError as error:
                wait_s = attempts.wait_s(error)
            await asyncio.sleep(wait_s)
