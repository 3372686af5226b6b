"""Delivers the results of finished batches, and retries what failed.

If the engine raised, the batch is halved until the sequence at fault is alone. If outputs are not finite, sequences
that share a row run again alone. If memory ran out, later batches are at most half as large.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeAlias

import structlog

from electra_serve.batching.engine_worker import BatchResult
from electra_serve.batching.flight_recorder import BatchOutcome, BatchRecord, InFlightBatch
from electra_serve.batching.in_flight import InFlight, RetryQueue
from electra_serve.batching.pending import PendingRows
from electra_serve.errors import EngineFailure, InternalError
from electra_serve.observability.metrics import BatchMetrics

# called with a finished batch and its rows, most urgent first
BatchObserver: TypeAlias = Callable[[BatchRecord, PendingRows], None]


class BatchCompletion:
    """Completes the batches of one model."""

    def __init__(
        self,
        *,
        in_flight: InFlight,
        retries: RetryQueue,
        metrics: BatchMetrics,
        log: structlog.typing.FilteringBoundLogger,
        observe: BatchObserver | None,
    ) -> None:
        self._in_flight = in_flight
        self._retries = retries
        self._metrics = metrics
        self._log = log
        self._observe_batch = observe

    def complete(self, flight: InFlightBatch, result: BatchResult | BaseException, ended_at: float) -> None:
        """Delivers a batch's outputs, or retries it if the engine raised."""
        rows = self._in_flight.end(flight)
        if rows is None:  # aborted meanwhile
            return
        flight.ended_at = ended_at
        try:
            if isinstance(result, BatchResult):
                self._measure(result, flight)
                self._in_flight.settle(self._deliver(result, flight, rows))
            else:
                self._retry(flight, rows, result)
        except Exception:  # noqa: BLE001  # even after a bug here, each row must get a result
            self.abort(rows)
        self._notify(flight, rows)

    def abort(self, rows: PendingRows) -> None:
        """Fails rows with the exception being handled, which is a bug of the batcher."""
        self._in_flight.forget(rows)
        self._in_flight.fail(rows, InternalError("internal error while batching"))
        self._log.exception("internal batch error", rows=len(rows))

    def _measure(self, result: BatchResult, flight: InFlightBatch) -> None:
        flight.seconds = result.seconds
        flight.started_at = (flight.ended_at or 0.0) - result.seconds
        flight.non_finite_rows = len(result.finite) - int(result.finite.sum())
        flight.outcome = BatchOutcome.NON_FINITE if flight.non_finite_rows else BatchOutcome.OK
        shape = flight.shape
        flight.lane.correction.observe(flight.lane.planner.costs.seconds(shape), result.seconds)
        self._metrics.compute_s.observe(result.seconds)
        self._metrics.sequences.observe(len(flight.placements))
        self._metrics.tokens.observe(shape.positions)
        self._metrics.real_tokens.inc(flight.real_tokens)
        self._metrics.padded_tokens.inc(shape.positions)

    def _deliver(self, result: BatchResult, flight: InFlightBatch, rows: PendingRows) -> PendingRows:
        """Returns the rows that now have a result; the others are retried."""
        sharing = Counter(place.row for place in flight.placements)
        completed, suspects = [], []
        for row, place, finite in zip(rows, flight.placements, result.finite, strict=True):
            if not finite and sharing[place.row] > 1:
                suspects.append(row)
                continue
            completed.append(row)
            if finite:
                row.request.deliver(row.index, result.output.extract(place, row.encoding, row.request.outputs))
            else:
                self._metrics.non_finite_rows.inc()
                row.request.fail(EngineFailure("the model's output for this sequence is not finite"))
        self._retries.isolate(suspects, flight.budget)
        return completed

    def _retry(self, flight: InFlightBatch, rows: PendingRows, error: BaseException) -> None:
        memory = isinstance(error, MemoryError)
        flight.outcome = BatchOutcome.OUT_OF_MEMORY if memory else BatchOutcome.FAILED
        flight.error = type(error).__name__
        self._metrics.engine_failures.inc()
        self._log.error("engine failed", error=f"{error!r:.500}", batch=asdict(flight.record()))
        if memory:
            self._metrics.out_of_memory.inc()
        if len(rows) == 1:
            self._fail(rows, error)
            return
        if memory:
            self._halve_batches(flight)
        self._retries.split(rows, flight.budget)

    def _fail(self, rows: PendingRows, error: BaseException) -> None:
        failure = EngineFailure("the engine failed on this sequence")
        failure.__cause__ = error
        self._in_flight.fail(rows, failure)

    def _halve_batches(self, flight: InFlightBatch) -> None:
        planner = flight.lane.planner
        budget = planner.max_positions
        if flight.budget != budget:  # halved since the batch was planned
            return
        planner.reduce_max_positions(planner.batch_positions // 2)
        self._log.warning("batch limit halved", tokens=planner.max_positions)

    def _notify(self, flight: InFlightBatch, rows: PendingRows) -> None:
        if self._observe_batch is not None:
            try:
                self._observe_batch(flight.record(), rows)
            except Exception:  # noqa: BLE001  # an observer must not fail requests
                self._log.exception("batch observer failed")
