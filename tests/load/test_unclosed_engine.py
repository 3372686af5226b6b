"""An engine that hangs while it is closed: later loads go on, and the process ends as it should."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from benchmarks.load.clients import OK, RestClient
from benchmarks.stand_in import script as ids
from benchmarks.stand_in.script import Script
from electra_serve.batching.batcher import ENGINE_CLOSE_S
from tests.integration.process import free_port
from tests.load.conftest import Report
from tests.load.operator import KEY, Operator
from tests.load.payload import Payload
from tests.load.stand_in import stand_in

PRESET = "electra_demo"


@pytest.mark.parametrize("waits", [pytest.param(0.1, id="short"), pytest.param(1.0, id="long", marks=pytest.mark.long)])
@pytest.mark.parametrize("change", ["reload", "unload"])
async def test_an_engine_that_hangs_in_close_blocks_no_later_load(
    change: str, waits: float, tmp_path: Path, report: Report
) -> None:
    keys, admin_port = tmp_path / "keys", free_port()
    keys.write_text(f"operator:{KEY}\n")
    flags = (f"--admin.port={admin_port}", f"--admin.keys_file={keys}")
    with stand_in(tmp_path, Script(waits=waits), *flags) as process, Operator(admin_port) as operator:
        client = RestClient(process.rest_port)
        assert (await client.ask(Payload(((5, 6, ids.WEDGE_CLOSE),)))).code == OK  # it takes effect on closing
        if change == "unload":
            assert (await asyncio.to_thread(operator.load, PRESET, "other")).status_code == 201
        began = time.monotonic()
        if change == "unload":
            assert (await asyncio.to_thread(operator.unload, PRESET)).status_code == 204
        else:
            assert (await asyncio.to_thread(operator.reload, PRESET, PRESET)).status_code == 200
        took_s = time.monotonic() - began
        assert (await asyncio.to_thread(operator.load, PRESET, "later")).status_code == 201
        assert process.status("/readyz") == 200
        await client.close()
        process.terminate()
        assert process.wait() == 0
    [unclosed] = [event for event in process.events if event["event"] == "engine not closed"]
    assert unclosed["model"] == PRESET
    report.promise(took_s < 2 * ENGINE_CLOSE_S, "closing is limited")
    report(f"{change} after {took_s:.1f} s, the next load works, exit 0")
