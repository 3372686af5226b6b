"""One request's rows on their way through the batcher."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from electra_serve.errors import ServiceError
from electra_serve.observability.tracing import RequestSpan
from electra_serve.tensors import Encoding, Outputs, RowOutput


class PendingRequest:
    """Collects the rows of one request; its answer comes when all are there, or with the first failure.

    Args:
        rows: How many rows it has, at least one.
        outputs: What its caller wants.
        span: The request's, where requests are traced.

    Attributes:
        answer: The rows in order, or the error.
    """

    def __init__(self, rows: int, outputs: Outputs, span: RequestSpan | None = None) -> None:
        self.outputs = outputs
        self.span = span
        self.answer: asyncio.Future[list[RowOutput]] = asyncio.get_running_loop().create_future()
        self._rows: dict[int, RowOutput] = {}
        self._count = rows

    def deliver(self, index: int, row: RowOutput) -> None:
        """Takes one row's outputs; nobody hears of them when the job has failed or was cancelled."""
        self._rows[index] = row
        if len(self._rows) == self._count and not self.answer.done():
            self.answer.set_result([self._rows[i] for i in range(self._count)])

    def fail(self, error: ServiceError) -> None:
        """Answers with `error`, unless the job is answered or was cancelled."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One sequence of a job.

    Attributes:
        job: The request it belongs to.
        index: Its place there.
        encoding: The sequence.
    """

    job: PendingRequest
    index: int
    encoding: Encoding
