"""Mixed load for long: the process holds no more at the end than it did in the middle.

The check itself is checked: a process that leaks on purpose must fail it. The short form soaks the stand-in for some
seconds, the long one (`make soak`) the real service for half an hour, or `SOAK_SECONDS`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.integration.process import ServiceProcess, start
from tests.load.conftest import Report
from tests.load.gauges import gauge, wait_at_rest
from tests.load.growth import Growth, Sample
from tests.load.mixed_load import EXPECTED, mixed_load
from tests.load.script import Script
from tests.load.stand_in import stand_in

SOAK_S: Final = float(os.environ.get("SOAK_SECONDS", 31 * 60))
CONTROL_S: Final = 60.0
SAMPLES: Final = 60
FAST: Final = Script(batch_s=0.002, position_s=1e-6)
LEAKS_MEMORY: Final = Script(batch_s=0.002, position_s=1e-6, leak_bytes=2**20)
LEAKS_DESCRIPTORS: Final = Script(batch_s=0.002, position_s=1e-6, leak_descriptors=True)
SHORT_S: Final = 10.0
SHORT_CONTROL_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Soaked:
    """What was seen.

    Attributes:
        samples: At equal intervals.
        codes: What came of the requests.
    """

    samples: list[Sample]
    codes: Counter[str]

    def figure(self) -> str:
        """All of it, in a line."""
        growth, last = Growth.over(self.samples), self.samples[-1]
        return (
            f"{sum(self.codes.values())} requests ({dict(self.codes.most_common())}); from mid-run memory "
            f"{growth.resident_bytes / 1e6:+.1f} MB (of {last.resident_bytes / 1e6:.0f}), threads {growth.threads:+g} "
            f"(of {last.threads:g}), descriptors {growth.descriptors:+g}, compilations {growth.compilations:+g}"
        )


def soak(process: ServiceProcess, seconds: float, *, known: bool) -> Soaked:
    """Loads it for so long, and samples it meanwhile."""

    async def run() -> Soaked:
        until_s = time.monotonic() + seconds
        loading = asyncio.create_task(mixed_load(process, until_s, known=known))
        samples = []
        async with httpx.AsyncClient(base_url=process.url, timeout=30) as client:
            while not loading.done():
                text = (await client.get("/metrics")).text
                samples.append(Sample.of(process.popen.pid, gauge(text, "electra_compilations_after_warm_up")))
                await asyncio.wait((loading,), timeout=seconds / SAMPLES)
        return Soaked(samples, loading.result())

    return asyncio.run(run())


def test_a_short_soak(tmp_path: Path, report: Report) -> None:
    _check(stand_in(tmp_path, FAST, "--log.requests=false"), SHORT_S, report, known=True)


@pytest.mark.long
def test_soak(tmp_path: Path, report: Report) -> None:
    _check(start(tmp_path, "--log.format=json", "--log.requests=false"), SOAK_S, report, known=False)


def _check(service: AbstractContextManager[ServiceProcess], seconds: float, report: Report, *, known: bool) -> None:
    with service as process:
        process.wait_ready()
        soaked = soak(process, seconds, known=known)
        wait_at_rest(process)
        complaints = process.complaints
    report(f"{seconds:.0f} s, {soaked.figure()}")
    assert set(soaked.codes) <= EXPECTED
    assert complaints == []
    assert Growth.over(soaked.samples).faults() == []


@pytest.mark.parametrize(
    "seconds", [pytest.param(SHORT_CONTROL_S, id="short"), pytest.param(CONTROL_S, id="long", marks=pytest.mark.long)]
)
@pytest.mark.parametrize(("script", "fault"), [(LEAKS_MEMORY, "memory"), (LEAKS_DESCRIPTORS, "descriptors")])
def test_a_leak_fails_the_check(script: Script, fault: str, seconds: float, tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, script, "--log.requests=false") as process:
        faults = Growth.over(soak(process, seconds, known=True).samples).faults()
    report(f"control, {seconds:.0f} s: {', '.join(faults)}")
    assert any(fault in found for found in faults)
