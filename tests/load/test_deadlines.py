"""Deadlines under load: hopeless requests are rejected at once, and expired ones never reach the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from benchmarks.load.clients import Client, RestClient
from benchmarks.stand_in.record import reached_sequences, read_record
from benchmarks.stand_in.script import Script
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.gauges import until_gauge
from tests.load.payload import number_head, numbered
from tests.load.stand_in import stand_in

LENGTH: Final = 32
POSITIONS: Final = 8 * LENGTH
"""Of a batch: eight sequences fill it."""
BACKLOG: Final = 80
"""Requests ahead of those with a deadline: ten batches of 60 ms."""
BEGUN: Final = 20
"""Of them, when the one with a deadline is sent: more than its 100 ms of work, on a busy machine too."""
QUEUED: Final = "electra_queued_sequences"
HOPELESS_MS: Final = 100
AMPLE_MS: Final = 30_000
REJECTIONS: Final = {"overloaded", "deadline_exceeded"}
EXPIRING: Final = 200
LEAST_MS, STEP_MS = 20, 10
PACKED_S: Final = 0.05
"""Time that a row may wait in a packed batch that runs next; it stays in it."""
AT_ONCE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Recorded:
    """A stand-in and the record of its engine."""

    process: ServiceProcess
    record: Path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("deadlines")
    record = folder / "record"
    script = Script(batch_s=0.02, position_s=0.04 / POSITIONS, record=str(record))
    with stand_in(folder, script, f"--batching.max_batch_tokens={POSITIONS}") as process:
        yield Recorded(process, record)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
async def test_hopeless_requests_are_rejected(transport: str, recorded: Recorded, report: Report) -> None:
    first = 1000 if transport == "rest" else 2000
    async with asyncio.TaskGroup() as group:
        client = client_of(recorded.process, transport)
        backlog = [group.create_task(client.ask(numbered(first + i, LENGTH))) for i in range(BACKLOG)]
        await until_gauge(recorded.process, QUEUED, BEGUN)
        rejected = await client.ask(numbered(first + 500, LENGTH), timeout_ms=HOPELESS_MS)
        patient = await client.ask(numbered(first + 501, LENGTH), timeout_ms=AMPLE_MS)
    await client.close()
    assert {task.result().code for task in backlog} == {"ok"}
    assert rejected.code in REJECTIONS, rejected
    assert rejected.code == "deadline_exceeded" or rejected.retry_after_s
    assert patient.code == "ok"
    assert number_head(first + 500) not in reached_sequences(recorded.record)
    report(f"{rejected.code} after {rejected.seconds * 1e3:.1f} ms, of {HOPELESS_MS} ms asked for with {BACKLOG} ahead")
    report.promise(rejected.seconds < HOPELESS_MS / 1e3 + AT_ONCE_S, "a hopeless request is rejected at once")


async def test_the_timeout_of_envoy_is_a_deadline(recorded: Recorded) -> None:
    hurried = RestClient(recorded.process.rest_port, headers={"x-envoy-expected-rq-timeout-ms": str(HOPELESS_MS)})
    client = RestClient(recorded.process.rest_port)
    async with asyncio.TaskGroup() as group:
        for i in range(BACKLOG):
            group.create_task(client.ask(numbered(3000 + i, LENGTH)))
        await until_gauge(recorded.process, QUEUED, BEGUN)
        rejected = await hurried.ask(numbered(3500, LENGTH))
    await asyncio.gather(client.close(), hurried.close())
    assert rejected.code in REJECTIONS
    assert number_head(3500) not in reached_sequences(recorded.record)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
async def test_expired_requests_never_reach_the_engine(transport: str, recorded: Recorded, report: Report) -> None:
    """With deadlines around the start of their batches, no row reaches the engine after its rejection."""
    first = 4000 if transport == "rest" else 6000
    client = client_of(recorded.process, transport)
    rejected_s: dict[int, float] = {}
    codes: list[str] = []

    async def ask(number: int, timeout_ms: int) -> None:
        codes.append((await client.ask(numbered(number, LENGTH), timeout_ms=timeout_ms)).code)
        if codes[-1] != "ok":
            rejected_s[number] = time.monotonic()

    async with asyncio.TaskGroup() as group:
        for i in range(EXPIRING):
            group.create_task(ask(first + i, timeout_ms=LEAST_MS + STEP_MS * (i % 100)))
    await client.close()
    reached_s = {head: batch.at_s for batch in read_record(recorded.record) for head in batch.sequences}
    late = [number for number, at_s in rejected_s.items() if reached_s.get(number_head(number), 0.0) > at_s + PACKED_S]
    assert set(codes) <= {"ok", *REJECTIONS}
    assert late == [], "the engine ran rows that were rejected before"
    report(f"{EXPIRING} with deadlines of 20 ms to 1 s: {codes.count('ok')} computed, {len(rejected_s)} only rejected")


def client_of(process: ServiceProcess, transport: str) -> Client:
    """Makes a client of one transport."""
    return process.endpoints[transport == "grpc"].client()
