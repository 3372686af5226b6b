"""A batcher over fake engines and a fake clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from electra_serve.batching.admission import QueueLimits
from electra_serve.batching.batcher import Batcher
from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.engine_worker import EngineWorker
from electra_serve.batching.flight_recorder import FlightRecorder
from electra_serve.batching.pending import PendingRow
from electra_serve.batching.planner import Planner
from electra_serve.batching.queue import RequestQueue
from electra_serve.batching.worker_pool import Lane, WorkerPool
from electra_serve.observability.metrics import Metrics
from electra_serve.tensors import Output, Outputs, RowOutput
from tests.fakes import FakeClock, FakeEngine, encoding, fake_timings

SEQUENCE: Final[Outputs] = frozenset({Output.SEQUENCE})
HANG_S: Final = 30.0


@dataclass
class Rig:
    """A batcher over fake engines and a fake clock."""

    batcher: Batcher
    engines: Sequence[FakeEngine]
    clock: FakeClock
    metrics: Metrics
    tasks: list[asyncio.Task[list[RowOutput]]] = field(default_factory=list)

    @property
    def engine(self) -> FakeEngine:
        return self.engines[0]

    def submit(
        self, *rows: Sequence[int], outputs: Outputs = SEQUENCE, **options: object
    ) -> asyncio.Task[list[RowOutput]]:
        encodings = [encoding(*row) for row in rows]
        task = asyncio.create_task(self.batcher.submit(encodings, outputs, **options))  # type: ignore[arg-type]
        self.tasks.append(task)
        return task

    @property
    def ran(self) -> list[list[list[int]]]:
        """The ids of each sequence of each batch that ran."""
        return [
            [
                batch.token_ids[place.row, place.start : place.start + place.length].tolist()
                for place in batch.placements
            ]
            for batch in self.engine.batches
        ]

    def metric(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(name, {"model": "m"})
        assert value is not None
        return value


def make_rig(
    *engines: FakeEngine,
    lone: FakeEngine | None = None,
    max_sequences: int = 64,
    max_positions: int = 512,
    log: Any = None,
) -> Rig:
    clock = FakeClock()
    metrics = Metrics("test")
    fakes = engines or (FakeEngine(),)
    costs = CostTable(fake_timings(fakes[0], batch_s=0.01, position_s=1e-4))

    def lane(*engines: FakeEngine) -> Lane:
        workers = (EngineWorker(engine, f"test-{i}", clock) for i, engine in enumerate(engines))
        return Lane(tuple(workers), Planner(costs, max_positions=max_positions))

    queue: RequestQueue[PendingRow] = RequestQueue(QueueLimits(max_sequences, 100_000))
    batcher = Batcher(
        queue=queue,
        pool=WorkerPool(lane(*fakes), None if lone is None else lane(lone)),
        clock=clock,
        metrics=metrics.batches("m"),
        log=log or structlog.get_logger(),
        max_window_sequences=32,
        hang_timeout_s=HANG_S,
        recorder=FlightRecorder(16),
    )
    return Rig(batcher, fakes if lone is None else (*fakes, lone), clock, metrics)


async def close(rig: Rig) -> None:
    for engine in rig.engines:
        engine.gate.set()
    await rig.batcher.close()
    await asyncio.gather(*rig.tasks, return_exceptions=True)


async def iterations(count: int = 20) -> None:
    """Lets the event loop run what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


async def hold(rig: Rig) -> asyncio.Task[list[RowOutput]]:
    """Lets the engine run and hold a first request, so that later ones queue."""
    rig.engine.gate.clear()
    first = rig.submit([1])
    await iterations()
    return first
