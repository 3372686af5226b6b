"""What becomes of a batch that an engine hands back.

Each of its sequences is answered here, with its output or with an error of its own, or put into a part that is run
again. If the engine raised, that is every sequence: the batch is halved until the one at fault is alone. If numbers are
not finite, sequences that share a row with others are run again alone, since one of them spoils its whole row. If
memory was short, batches are at most half as large from then on: the memory that others use is rarely freed again. The
parts of that batch are run in any case, and halve nothing again.

On the event loop only. Nothing here chooses a batch or starts one; `Batcher` does.
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

BatchObserver: TypeAlias = Callable[[BatchRecord, PendingRows], None]
"""Takes a batch that has ended, and its rows in order of turn."""


class BatchCompletion:
    """Takes batches back.

    Args:
        in_flight: Who is under way.
        retries: Halves of failed batches that wait to be run again.
        metrics: Where batches are counted.
        log: Where engine failures are written.
        observe: Told of each batch that has ended, after its rows are answered.
    """

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

    def complete(self, flight: InFlightBatch, came: BatchResult | BaseException, ended_at: float) -> None:
        """Takes one batch back: answers its rows, or has them run again.

        Args:
            flight: The batch.
            came: What the engine made of it, or what it raised.
            ended_at: When, in seconds of the event loop's clock.
        """
        rows = self._in_flight.end(flight)
        if rows is None:  # given up meanwhile
            return
        flight.ended_at = ended_at
        try:
            if isinstance(came, BatchResult):
                self._measure(came, flight)
                self._in_flight.settle(self._deliver(came, flight, rows))
            else:
                self._fall_back(flight, rows, came)
        except Exception:  # noqa: BLE001  # a fault of ours, but no caller may wait for ever because of it
            self.abort(rows)
        self._notify(flight, rows)

    def abort(self, rows: PendingRows) -> None:
        """Fails rows because of what is being raised, which is a fault of ours."""
        self._in_flight.forget(rows)
        self._in_flight.fail(rows, InternalError("internal error while batching"))
        self._log.exception("batch failed outside the engine", rows=len(rows))

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
        """Returns the sequences that are answered; the others are run again."""
        sharing = Counter(place.row for place in flight.placements)
        answered, suspects = [], []
        for row, place, finite in zip(rows, flight.placements, result.finite, strict=True):
            if not finite and sharing[place.row] > 1:
                suspects.append(row)
                continue
            answered.append(row)
            if finite:
                row.request.deliver(row.index, result.output.extract(place, row.encoding, row.request.outputs))
            else:
                self._metrics.non_finite_rows.inc()
                row.request.fail(EngineFailure("the model's output for this sequence is not finite"))
        self._retries.isolate(suspects, flight.budget)
        return answered

    def _fall_back(self, flight: InFlightBatch, rows: PendingRows, error: BaseException) -> None:
        """What to do with a batch on which the engine raised."""
        memory = isinstance(error, MemoryError)
        flight.outcome = BatchOutcome.OUT_OF_MEMORY if memory else BatchOutcome.FAILED
        flight.error = type(error).__name__
        self._metrics.engine_failures.inc()
        self._log.error("engine failed", error=f"{error!r:.500}", batch=asdict(flight.record()))
        if memory:
            self._metrics.out_of_memory.inc()
        if len(rows) == 1:
            self._blame(rows, error)
            return
        if memory:
            self._make_smaller(flight)
        self._retries.split(rows, flight.budget)

    def _blame(self, rows: PendingRows, error: BaseException) -> None:
        failure = EngineFailure("the engine failed on this sequence")
        failure.__cause__ = error
        self._in_flight.fail(rows, failure)

    def _make_smaller(self, flight: InFlightBatch) -> None:
        """Halves the budget; not again for what was planned before it was halved."""
        planner = flight.lane.planner
        budget = planner.max_positions
        if flight.budget != budget:
            return
        planner.reduce_max_positions(planner.batch_positions // 2)
        self._log.warning("batches are smaller from now on", tokens=planner.max_positions)

    def _notify(self, flight: InFlightBatch, rows: PendingRows) -> None:
        if self._observe_batch is not None:
            try:
                self._observe_batch(flight.record(), rows)
            except Exception:  # noqa: BLE001  # nobody is to be hurt by who only looks on
                self._log.exception("a batch could not be told of")
