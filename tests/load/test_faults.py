"""Engines that fail in every known way, in the real process: which requests fail, which do not, and how it ends."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import grpc
import httpx
import pytest

from benchmarks.load.clients import OK, UNREACHABLE, ask_all
from benchmarks.stand_in import script as ids
from benchmarks.stand_in.script import Script
from electra_serve.server.lifecycle import EXIT_FAULT
from tests.integration.process import ServiceProcess
from tests.integration.standard import health_of
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape, wait_at_rest
from tests.load.payload import Payload, numbered
from tests.load.stand_in import stand_in
from tests.waiting import wait_until

LENGTH: Final = 16
NEIGHBORS: Final = 12
HANG_S: Final = 2.0
PROMISED_S: Final = 5.0
SCRIPT: Final = Script(batch_s=0.02, memory_sequences=4)


def ordering(fault: int, number: int) -> Payload:
    """Makes a row that orders a fault."""
    return Payload(((*numbered(number, LENGTH - 1).rows[0], fault),))


def health(process: ServiceProcess) -> str:
    """Returns the status of gRPC's health service; "" if it is unreachable."""
    with grpc.insecure_channel(process.target) as channel:
        try:
            return health_of(channel)
        except grpc.RpcError:
            return ""


async def test_rows_at_fault_fail_alone_and_little_memory_loses_none(tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, SCRIPT) as process:
        for fault in (ids.RAISE, ids.NOT_FINITE):
            bad = [ordering(fault, number) for number in range(1000, 1004)]  # two over each transport
            outcomes = await ask_all(process.endpoints, [*bad, *(numbered(n, LENGTH) for n in range(NEIGHBORS))])
            assert [outcome.code for outcome in outcomes] == ["engine_failure"] * 4 + [OK] * NEIGHBORS
        report(f"4 rows that raise, 4 not finite: those 8 fail, {2 * NEIGHBORS} neighbors are exact")

        before = batch_tokens(process)
        outcomes = await ask_all(process.endpoints, [ordering(ids.OUT_OF_MEMORY, n) for n in range(2000, 2032)])
        assert {outcome.code for outcome in outcomes} == {OK}
        exposition = scrape(process)
        counted, after = gauge(exposition, "electra_out_of_memory_total"), batch_tokens(process)
        assert counted >= 1
        assert after < before
        report(
            f"32 sequences where memory takes 4: all exact, {counted:.0f} times short, batches of {before} → {after}"
        )

        outcomes = await ask_all(
            process.endpoints, [ordering(ids.SLOW, 3000), *(numbered(n, LENGTH) for n in range(NEIGHBORS))]
        )
        assert {outcome.code for outcome in outcomes} == {OK}
        assert process.status("/readyz") == 200
        wait_at_rest(process)


def batch_tokens(process: ServiceProcess) -> int:
    """Returns the model's present limit of a batch."""
    tokens: int = httpx.get(f"{process.url}/v1/models").json()["models"][0]["batch_tokens"]
    return tokens


@pytest.mark.parametrize("fault", [ids.WEDGE, ids.END_THREAD], ids=["hangs", "thread-ends"])
async def test_a_failed_engine_ends_the_process(fault: int, tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, SCRIPT, f"--batching.hang_timeout_s={HANG_S}") as process:
        assert (process.status("/readyz"), health(process)) == (200, "SERVING")
        began = time.monotonic()
        first = asyncio.create_task(ask_all(process.endpoints, [ordering(fault, 1)]))
        await asyncio.sleep(0.3)  # until the engine runs it
        waiting = asyncio.create_task(ask_all(process.endpoints, [numbered(n, LENGTH) for n in range(NEIGHBORS)]))
        await asyncio.to_thread(wait_until, lambda: process.status("/readyz") != 200)
        not_ready_s = time.monotonic() - began
        await asyncio.to_thread(wait_until, lambda: health(process) != "SERVING")
        code = await asyncio.to_thread(process.wait)
        ended_s = time.monotonic() - began
        [poison], waited = await first, await waiting

    assert code == EXIT_FAULT
    report.promise(not_ready_s < PROMISED_S, f"not ready within {PROMISED_S:g} s")
    assert poison.code == ("engine_failure" if fault == ids.WEDGE else OK)
    assert {outcome.code for outcome in waited} <= {"model_not_ready", "engine_failure", UNREACHABLE}
    assert all(outcome.retry_after_s for outcome in waited if outcome.code == "model_not_ready")
    [lost] = [event for event in process.events if event["event"] == "model failed"]
    assert isinstance(lost["batches"], list)
    codes = {
        code: sum(outcome.code == code for outcome in waited) for code in sorted({outcome.code for outcome in waited})
    }
    report(f"not ready {not_ready_s:.1f} s after, exit {code} {ended_s:.1f} s after; queued requests: {codes}")
