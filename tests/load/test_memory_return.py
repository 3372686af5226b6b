"""Memory that large responses took goes back to the system while the process serves on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import pytest

from benchmarks.load.clients import OK, ask_all
from benchmarks.stand_in.script import Script
from electra_serve.runtime.memory import TRIM_EVERY_S, TRIM_SLACK_BYTES
from electra_serve.tensors import Output
from tests.load.conftest import Report
from tests.load.gauges import wait_at_rest
from tests.load.growth import resident_bytes
from tests.load.payload import Payload, numbered
from tests.load.stand_in import stand_in
from tests.waiting import wait_until

ROWS: Final = 160
LENGTH: Final = 128
CLIENTS: Final = 16
"""More than the queue takes at once; the others are rejected."""
SPARE_BYTES: Final = 48 * 2**20
"""Caches and stacks that a first burst leaves behind."""
MOST_GROWTH_BYTES: Final = 400e6
GOES_BACK_S: Final = 180.0
"""Limit on a busy machine."""


@pytest.mark.parametrize(
    ("bursts", "waits"), [pytest.param(1, 0.1, id="short"), pytest.param(12, 1.0, id="long", marks=pytest.mark.long)]
)
async def test_memory_of_large_responses_goes_back(bursts: int, waits: float, tmp_path: Path, report: Report) -> None:
    rows = tuple(numbered(number, LENGTH).rows[0] for number in range(ROWS))
    large = Payload(rows, (Output.SEQUENCE,), known=False)
    with stand_in(tmp_path, Script(batch_s=0.001, position_s=1e-7, waits=waits)) as process:
        before = resident_bytes(process)
        peak = before
        for endpoint in reversed(process.endpoints):
            for _ in range(bursts):
                outcomes = await ask_all([endpoint], [large] * CLIENTS)
                assert OK in {outcome.code for outcome in outcomes} <= {OK, "overloaded"}
                peak = max(peak, resident_bytes(process))
        await asyncio.to_thread(wait_at_rest, process)
        after = resident_bytes(process)
        began = time.monotonic()
        allowed = before + TRIM_SLACK_BYTES + SPARE_BYTES
        await asyncio.to_thread(wait_until, lambda: resident_bytes(process) <= allowed, GOES_BACK_S)
        took_s = time.monotonic() - began
        report(
            f"{before / 1e6:.0f} MB at rest, {peak / 1e6:.0f} MB at most, {after / 1e6:.0f} MB after {2 * bursts} "
            f"bursts of {CLIENTS} large responses, {resident_bytes(process) / 1e6:.0f} MB {took_s:.0f} s later"
        )
        assert after - before < MOST_GROWTH_BYTES
        report.promise(took_s <= 2 * TRIM_EVERY_S, "memory goes back within a minute")
        process.terminate()
        assert process.wait() == 0
