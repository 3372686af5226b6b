"""Deadlines under load: what is hopeless is refused at once, and what has expired never reaches the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.integration.process import ServiceProcess
from tests.load.callers import Caller, Endpoint, RestCaller
from tests.load.conftest import Report
from tests.load.payload import number_head, numbered
from tests.load.record import reached_sequences, read_record
from tests.load.script import Script
from tests.load.stand_in import stand_in
from tests.load.until import until_gauge

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
REFUSALS: Final = {"overloaded", "deadline_exceeded"}
EXPIRING: Final = 200
LEAST_MS, STEP_MS = 20, 10
PACKED_S: Final = 0.05
"""How long a row may wait in a batch that is packed and next to run: it is not taken out again."""
AT_ONCE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Recorded:
    """A stand-in, and the record of what reached its engine."""

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
async def test_what_is_hopeless_is_refused_at_once(transport: str, recorded: Recorded, report: Report) -> None:
    first = 1000 if transport == "rest" else 2000
    async with asyncio.TaskGroup() as group:
        caller = caller_of(recorded.process, transport)
        backlog = [group.create_task(caller.ask(numbered(first + i, LENGTH))) for i in range(BACKLOG)]
        await until_gauge(recorded.process, QUEUED, BEGUN)
        refused = await caller.ask(numbered(first + 500, LENGTH), timeout_ms=HOPELESS_MS)
        patient = await caller.ask(numbered(first + 501, LENGTH), timeout_ms=AMPLE_MS)
    await caller.close()
    assert {task.result().code for task in backlog} == {"ok"}
    assert refused.code in REFUSALS, refused
    assert refused.code == "deadline_exceeded" or refused.retry_after_s
    assert patient.code == "ok"
    assert number_head(first + 500) not in reached_sequences(recorded.record)
    report(f"{refused.code} after {refused.seconds * 1e3:.1f} ms, of {HOPELESS_MS} ms asked for with {BACKLOG} ahead")
    report.promise(refused.seconds < HOPELESS_MS / 1e3 + AT_ONCE_S, "a hopeless request is rejected at once")


async def test_envoys_timeout_is_a_deadline(recorded: Recorded) -> None:
    hurried = RestCaller(recorded.process.rest_port, headers={"x-envoy-expected-rq-timeout-ms": str(HOPELESS_MS)})
    caller = RestCaller(recorded.process.rest_port)
    async with asyncio.TaskGroup() as group:
        for i in range(BACKLOG):
            group.create_task(caller.ask(numbered(3000 + i, LENGTH)))
        await until_gauge(recorded.process, QUEUED, BEGUN)
        refused = await hurried.ask(numbered(3500, LENGTH))
    await asyncio.gather(caller.close(), hurried.close())
    assert refused.code in REFUSALS
    assert number_head(3500) not in reached_sequences(recorded.record)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
async def test_what_expires_never_reaches_the_engine(transport: str, recorded: Recorded, report: Report) -> None:
    """With deadlines all around the time of their turns, no row reaches the engine once its caller has been told."""
    first = 4000 if transport == "rest" else 6000
    caller = caller_of(recorded.process, transport)
    told_s: dict[int, float] = {}
    codes: list[str] = []

    async def ask(number: int, timeout_ms: int) -> None:
        codes.append((await caller.ask(numbered(number, LENGTH), timeout_ms=timeout_ms)).code)
        if codes[-1] != "ok":
            told_s[number] = time.monotonic()

    async with asyncio.TaskGroup() as group:
        for i in range(EXPIRING):
            group.create_task(ask(first + i, timeout_ms=LEAST_MS + STEP_MS * (i % 100)))
    await caller.close()
    reached_s = {head: batch.at_s for batch in read_record(recorded.record) for head in batch.sequences}
    late = [number for number, at_s in told_s.items() if reached_s.get(number_head(number), 0.0) > at_s + PACKED_S]
    assert set(codes) <= {"ok", *REFUSALS}
    assert late == [], "the engine was given what nobody waited for"
    report(
        f"{EXPIRING} with deadlines of 20 ms to 1 s: {codes.count('ok')} answered, {len(told_s)} told no, not computed"
    )


def caller_of(process: ServiceProcess, transport: str) -> Caller:
    """A caller over one transport."""
    return Endpoint(transport, process.rest_port if transport == "rest" else process.grpc_port).caller()
