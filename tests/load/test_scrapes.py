"""Abandoned scrapes of one client do not queue, and delay neither other scrapes nor a stop."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import Final

import pytest

from benchmarks.stand_in.script import Script
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.gauges import scrape
from tests.load.growth import resident_bytes
from tests.load.stand_in import stand_in

MOST_GROWTH_BYTES: Final = 400e6
RESET: Final = struct.pack("ii", 1, 0)
"""Closes a connection with RST."""


@pytest.mark.parametrize(
    "scrapes", [pytest.param(500, id="short"), pytest.param(15_000, id="long", marks=pytest.mark.long)]
)
def test_scrapes_that_are_left(scrapes: int, tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, Script()) as process:
        before = resident_bytes(process)
        for _ in range(scrapes):
            scrape_and_leave(process)
        began = time.monotonic()
        assert "electra_build_info" in scrape(process)
        took_s = time.monotonic() - began
        grown = resident_bytes(process) - before
        assert process.status("/livez") == 200
        process.terminate()
        assert process.wait() == 0
        assert process.complaints == []
    assert grown < MOST_GROWTH_BYTES
    report.promise(took_s < 1.0, "a scrape does not wait for those before it")
    report(f"after {scrapes} scrapes that were left, one takes {took_s * 1e3:.0f} ms; +{grown / 1e6:.0f} MB, exit 0")


def scrape_and_leave(process: ServiceProcess) -> None:
    """Requests the metrics and resets the connection."""
    with socket.create_connection(("127.0.0.1", process.rest_port), timeout=10) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.001)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
