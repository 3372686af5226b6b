"""Engines that fail in every way we know of, in the real process: who is hurt, who is not, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc
import httpx
import pytest

from electra_serve.server.lifecycle import EXIT_FAULT
from tests.integration.process import ServiceProcess, wait_until
from tests.integration.standard import health_of
from tests.load import script as ids
from tests.load.callers import OK, UNREACHABLE, Answer, Endpoint
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape, wait_at_rest
from tests.load.payload import Payload, numbered
from tests.load.script import Script
from tests.load.stand_in import stand_in

LENGTH: Final = 16
NEIGHBOURS: Final = 12
HANG_S: Final = 2.0
PROMISED_S: Final = 5.0
SCRIPT: Final = Script(batch_s=0.02, memory_sequences=4)


def ordering(fault: int, number: int) -> Payload:
    """A row that orders a fault."""
    return Payload(((*numbered(number, LENGTH - 1).rows[0], fault),))


async def ask_all(process: ServiceProcess, payloads: Sequence[Payload]) -> list[Answer]:
    """Asks all at once, the odd ones over gRPC."""
    callers = [endpoint.caller() for endpoint in Endpoint.both(process.rest_port, process.grpc_port)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(callers[i % 2].ask(payload)) for i, payload in enumerate(payloads)]
    await asyncio.gather(*(caller.close() for caller in callers))
    return [task.result() for task in tasks]


def health(process: ServiceProcess) -> str:
    """What gRPC's health service says; "" where nobody answers."""
    with grpc.insecure_channel(process.target) as channel:
        try:
            return health_of(channel)
        except grpc.RpcError:
            return ""


async def test_rows_at_fault_fail_alone_and_little_memory_loses_none(tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, SCRIPT) as process:
        for fault in (ids.RAISE, ids.NOT_FINITE):
            bad = [ordering(fault, number) for number in range(1000, 1004)]  # two over each transport
            answers = await ask_all(process, [*bad, *(numbered(n, LENGTH) for n in range(NEIGHBOURS))])
            assert [answer.code for answer in answers] == ["engine_failure"] * 4 + [OK] * NEIGHBOURS
        report(f"4 rows that raise, 4 not finite: those 8 fail, each of their {2 * NEIGHBOURS} neighbours is exact")

        before = batch_tokens(process)
        answers = await ask_all(process, [ordering(ids.OUT_OF_MEMORY, n) for n in range(2000, 2032)])
        assert {answer.code for answer in answers} == {OK}
        exposition = scrape(process)
        counted, after = gauge(exposition, "electra_out_of_memory_total"), batch_tokens(process)
        assert counted >= 1
        assert after < before
        report(
            f"32 sequences where memory takes 4: all exact, {counted:.0f} times short, batches of {before} → {after}"
        )

        answers = await ask_all(process, [ordering(ids.SLOW, 3000), *(numbered(n, LENGTH) for n in range(NEIGHBOURS))])
        assert {answer.code for answer in answers} == {OK}
        assert process.status("/readyz") == 200
        wait_at_rest(process)


def batch_tokens(process: ServiceProcess) -> int:
    """The budget that the model's batches have at present."""
    tokens: int = httpx.get(f"{process.url}/v1/models").json()["models"][0]["batch_tokens"]
    return tokens


@pytest.mark.parametrize("fault", [ids.WEDGE, ids.END_THREAD], ids=["hangs", "thread-ends"])
async def test_an_engine_that_is_lost_ends_the_process(fault: int, tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, SCRIPT, f"--batching.hang_timeout_s={HANG_S}") as process:
        assert (process.status("/readyz"), health(process)) == (200, "SERVING")
        began = time.monotonic()
        first = asyncio.create_task(ask_all(process, [ordering(fault, 1)]))
        await asyncio.sleep(0.3)  # by now it is with the engine
        waiting = asyncio.create_task(ask_all(process, [numbered(n, LENGTH) for n in range(NEIGHBOURS)]))
        await asyncio.to_thread(wait_until, lambda: process.status("/readyz") != 200)
        not_ready_s = time.monotonic() - began
        await asyncio.to_thread(wait_until, lambda: health(process) != "SERVING")
        code = await asyncio.to_thread(process.wait)
        ended_s = time.monotonic() - began
        [poison], told = await first, await waiting

    assert code == EXIT_FAULT
    report.promise(not_ready_s < PROMISED_S, f"not ready within {PROMISED_S:g} s")
    assert poison.code == ("engine_failure" if fault == ids.WEDGE else OK)
    assert {answer.code for answer in told} <= {"model_not_ready", "engine_failure", UNREACHABLE}
    assert all(answer.retry_after_s for answer in told if answer.code == "model_not_ready")
    [lost] = [event for event in process.events if event["event"] == "model failed"]
    assert isinstance(lost["batches"], list)
    codes = {code: sum(answer.code == code for answer in told) for code in sorted({answer.code for answer in told})}
    report(f"not ready {not_ready_s:.1f} s after, exit {code} {ended_s:.1f} s after; those who waited: {codes}")
