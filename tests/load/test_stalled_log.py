"""Stalled readers of standard output and error: the service serves, counts lost lines and ends on SIGTERM."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from benchmarks.load.clients import OK, Endpoint, closed_loop
from benchmarks.stand_in.script import Script
from tests.integration.process import ServiceProcess, Standard
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape
from tests.load.payload import numbered
from tests.load.stand_in import stand_in
from tests.waiting import wait_until

SCRIPT: Final = Script(batch_s=0.0005, position_s=1e-7)
DROPPED: Final = "electra_log_lines_dropped_total"
REQUESTS: Final = 5_600
"""More lines than the pipe and the service's own queue of lines take together."""
CLIENTS: Final = 16
PATIENCE_S: Final = 20
PIPE_BYTES: Final = 4096


@dataclass
class Pipe:
    """A pipe of one page that only the test reads.

    Attributes:
        read_end: Read by the test.
        write_end: Given to the process.
        received: Bytes read so far.
    """

    read_end: int
    write_end: int
    received: bytearray = field(default_factory=bytearray)

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Pipe]:
        """Opens one and closes it at the end of the context."""
        read_end, write_end = os.pipe()
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            yield cls(read_end, write_end)
        finally:
            os.close(read_end)
            os.close(write_end)

    def fill(self) -> None:
        """Fills it, so that the next write blocks."""
        os.set_blocking(self.write_end, False)
        try:
            while True:
                os.write(self.write_end, b"\n" * PIPE_BYTES)
        except BlockingIOError:
            os.set_blocking(self.write_end, True)

    def read_in_background(self) -> None:
        """Reads everything, from a thread that ends with the test."""
        threading.Thread(target=self._read, args=(os.dup(self.read_end),), daemon=True).start()

    def events(self) -> list[dict[str, object]]:
        """The whole lines of JSON so far."""
        lines = bytes(self.received).decode().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            while piece := stream.read(65536):
                self.received += piece


async def test_a_reader_that_stalls_stops_nothing(tmp_path: Path, report: Report) -> None:
    """Standard output is full from the start, and standard error is never read."""
    with Pipe.open() as output, Pipe.open() as error:
        output.fill()
        with stand_in(tmp_path, SCRIPT, standard=Standard(output.write_end, error.write_end)) as process:
            answered = await ask(process, REQUESTS)
            exposition = scrape(process)
            dropped = gauge(exposition, DROPPED)
            assert answered == {OK: REQUESTS}
            assert 0 < dropped < REQUESTS
            assert process.status("/livez") == 200
            process.terminate()
            began = time.monotonic()
            assert process.wait() == 0
    report(
        f"{REQUESTS} answered, {dropped:.0f} lines dropped and counted, exit 0 {time.monotonic() - began:.1f} s later"
    )


async def test_a_reader_that_resumes_gets_whole_lines_and_the_number_lost(tmp_path: Path, report: Report) -> None:
    with Pipe.open() as output, Pipe.open() as error:
        with stand_in(tmp_path, SCRIPT, standard=Standard(output.write_end, error.write_end)) as process:
            assert await ask(process, REQUESTS) == {OK: REQUESTS}
            dropped = gauge(scrape(process), DROPPED)
            assert dropped > 0
            error.read_in_background()
            wait_until(lambda: any(event["event"] == "log lines dropped" for event in error.events()))
            process.terminate()
            assert process.wait() == 0
        wait_until(lambda: error.events()[-1]["event"] == "stopped")
    events = error.events()
    reported = sum(int(str(event["lines"])) for event in events if event["event"] == "log lines dropped")
    requests = [event for event in events if event["event"] == "request"]
    assert reported == dropped
    assert len(requests) + dropped >= REQUESTS
    times = [str(event["timestamp"]) for event in requests]
    assert times == sorted(times)
    report(f"{len(requests)} of {REQUESTS} lines read, in order; {reported} reported as dropped")


@pytest.mark.parametrize("ends", ["closed reader", "full disk"])
async def test_a_log_that_cannot_be_written_stops_nothing(ends: str, tmp_path: Path) -> None:
    with (
        Pipe.open() as output,
        unwritable(ends) as error,
        stand_in(tmp_path, SCRIPT, standard=Standard(output.write_end, error)) as process,
    ):
        assert await ask(process, 96) == {OK: 96}
        assert gauge(scrape(process), DROPPED) > 0
        process.terminate()
        assert process.wait() == 0


@contextmanager
def unwritable(ends: str) -> Iterator[int]:
    """Opens a descriptor that takes nothing."""
    if ends == "full disk":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        read_end, descriptor = os.pipe()
        os.close(read_end)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def ask(process: ServiceProcess, requests: int) -> Counter[str]:
    """Sends requests from several clients and counts the responses by code."""
    endpoint = Endpoint("rest", process.rest_port, patience_s=PATIENCE_S)
    sent = (numbered(number, 4) for number in range(requests))
    return Counter(outcome.code for outcome in await closed_loop([endpoint], CLIENTS, sent))
