"""An event loop that stalls is reported as such, and the engine that ran meanwhile is not."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Final

import pytest

from benchmarks.load.clients import OK, RestClient
from benchmarks.stand_in.script import Script
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape, until_gauge, wait_at_rest
from tests.load.payload import numbered
from tests.load.stand_in import stand_in
from tests.waiting import wait_until

STALL_S: Final = 5.0
"""Longer than the batch may take before its engine counts as stalled."""
SCRIPT: Final = Script(batch_s=0.3, loop_stall_s=STALL_S)


def block_loop(process: ServiceProcess) -> None:
    """Blocks the thread of the event loop; the engine's thread runs on."""
    process.popen.send_signal(signal.SIGUSR2)


def suspend(process: ServiceProcess) -> None:
    """Stops the whole process, as a paused machine does."""
    process.popen.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("stall", [block_loop, suspend])
async def test_a_stalled_event_loop_is_not_a_stalled_engine(stall: object, tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, SCRIPT) as process:
        client = RestClient(process.rest_port)
        running = asyncio.create_task(client.ask(numbered(1, 16)))
        await until_gauge(process, "electra_running_sequences", 1)
        assert callable(stall)
        stall(process)
        await asyncio.sleep(STALL_S)
        process.popen.send_signal(signal.SIGCONT)
        assert (await running).code == OK
        await client.close()
        await asyncio.to_thread(wait_at_rest, process)
        await asyncio.to_thread(wait_until, lambda: bool(named(process, "event loop stalled")))
        exposition = scrape(process)
        process.terminate()
        assert process.wait() == 0
    assert named(process, "engine stalled") == []
    [stalled] = named(process, "event loop stalled")
    assert float(str(stalled["seconds"])) > STALL_S / 2
    lags = "electra_event_loop_lag_seconds"
    assert gauge(exposition, f"{lags}_count") - gauge(exposition, f'{lags}_bucket{{le="1.024"}}') == 1
    report(f"{stalled['seconds']} s reported, of which {stalled['loop_cpu_seconds']} s computed; no stalled engine")


def named(process: ServiceProcess, event: str) -> list[dict[str, object]]:
    """The log's events of that name."""
    return [found for found in process.events if found["event"] == event]
