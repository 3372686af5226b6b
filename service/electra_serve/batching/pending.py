"""One request and its rows on their way through the batcher."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from opentelemetry.trace import Span

from electra_serve.batching.queue import QueueEntry
from electra_serve.errors import ServiceError
from electra_serve.tensors import Encoding, Outputs, RowOutput


class PendingRequest:
    """Collects the rows of one request: its result is set with the last row, or with the first failure.

    Attributes:
        result: The rows in order, or the error.
    """

    def __init__(self, rows: int, outputs: Outputs, span: Span | None = None) -> None:
        self.outputs = outputs
        self.span = span
        self.result: asyncio.Future[list[RowOutput]] = asyncio.get_running_loop().create_future()
        self._rows: dict[int, RowOutput] = {}
        self._count = rows

    def deliver(self, index: int, row: RowOutput) -> None:
        """Records one row's outputs; they are dropped if the request has failed or was cancelled."""
        self._rows[index] = row
        if len(self._rows) == self._count and not self.result.done():
            self.result.set_result([self._rows[i] for i in range(self._count)])

    def fail(self, error: ServiceError) -> None:
        """Sets `error` as the result, unless there is one or the request was cancelled."""
        if not self.result.done():
            self.result.set_exception(error)


@dataclass(slots=True, eq=False, kw_only=True)
class PendingRow(QueueEntry):
    """One sequence of a request, from its admission to its result."""

    request: PendingRequest
    index: int  # among the rows of the request
    encoding: Encoding


PendingRows: TypeAlias = Sequence[PendingRow]
