"""Mixed load over a long time: the process holds no more at the end than in the middle.

Controls that leak on purpose must fail the same check. The short form loads the stand-in for some seconds, the long one
(`make soak`) the real service for half an hour or `SOAK_SECONDS`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from benchmarks.stand_in.script import Script
from electra_serve.presets.catalog import DEMO_ID
from tests.integration.process import ServiceProcess, free_port, start
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape, wait_at_rest
from tests.load.growth import Growth, Sample
from tests.load.mixed_load import EXPECTED, mixed_load
from tests.load.operator import KEY, Operator
from tests.load.stand_in import stand_in

SOAK_S: Final = float(os.environ.get("SOAK_SECONDS", 31 * 60))
CONTROL_S: Final = 15.0
SAMPLES: Final = 60
RELOADS: Final = 12
"""As many in the third quarter as in the fourth, since a new model starts with empty caches."""
FAULTS: Final = ("internal", "engine_failure")
FAST: Final = Script(batch_s=0.002, position_s=1e-6)
LEAKS_MEMORY: Final = Script(batch_s=0.002, position_s=1e-6, leak_bytes=4 * 2**20)
LEAKS_DESCRIPTORS: Final = Script(batch_s=0.002, position_s=1e-6, leak_descriptors=4)
SHORT_S: Final = 8.0
SHORT_CONTROL_S: Final = 3.0
CONTROLS: Final = 4
"""Runs of a control, each twice as long: a slow machine leaks in few batches."""


@dataclass(frozen=True, slots=True)
class Soaked:
    """Result of a run.

    Attributes:
        samples: Samples at equal intervals.
        codes: Counts of requests by code.
    """

    samples: list[Sample]
    codes: Counter[str]

    def figure(self) -> str:
        """Summarizes it in a line."""
        growth, last = Growth.over(self.samples), self.samples[-1]
        return (
            f"{sum(self.codes.values())} requests ({dict(self.codes.most_common())}); from mid-run memory "
            f"{growth.resident_bytes / 1e6:+.1f} MB (of {last.resident_bytes / 1e6:.0f}), threads {growth.threads:+g} "
            f"(of {last.threads:g}), descriptors {growth.descriptors:+g}, compilations {growth.compilations:+g}"
        )


def soak(process: ServiceProcess, seconds: float, *, known: bool, reload: Callable[[], None] | None = None) -> Soaked:
    """Loads and samples the service.

    Args:
        process: The service.
        seconds: Duration.
        known: Responses must have the stand-in's outputs.
        reload: Reloads its model; called `RELOADS` times.
    """

    async def run() -> Soaked:
        until_s = time.monotonic() + seconds
        loading = asyncio.create_task(mixed_load(process, until_s, known=known))
        samples = []
        async with httpx.AsyncClient(base_url=process.url, timeout=30) as client:
            while not loading.done():
                text = (await client.get("/metrics")).text
                samples.append(Sample.of(process.popen.pid, gauge(text, "electra_compilations_after_warm_up")))
                if reload is not None and len(samples) % (SAMPLES // RELOADS) == 0:
                    await asyncio.to_thread(reload)
                await asyncio.wait((loading,), timeout=seconds / SAMPLES)
        return Soaked(samples, loading.result())

    return asyncio.run(run())


def test_a_short_soak(tmp_path: Path, report: Report) -> None:
    flags, operator = _admin(tmp_path)
    with operator, stand_in(tmp_path, FAST, *flags) as process:
        _check(process, operator, SHORT_S, report, known=True)


@pytest.mark.long
def test_soak(tmp_path: Path, report: Report) -> None:
    flags, operator = _admin(tmp_path)
    with operator, start(tmp_path, "--log.format=json", *flags) as process:
        process.wait_ready()
        _check(process, operator, SOAK_S, report, known=False)


def faults_counted(exposition: str) -> float:
    """Returns the number of failed requests in the service's metrics."""
    lines = [line for line in exposition.splitlines() if line.startswith("electra_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if any(f'code="{code}"' in line for code in FAULTS))


def _admin(folder: Path) -> tuple[tuple[str, ...], Operator]:
    """Returns the flags of a service with an admin API, and a client of it."""
    keys, port = folder / "admin-keys", free_port()
    keys.write_text(f"operator:{KEY}\n")
    keys.chmod(0o600)
    return (f"--admin.port={port}", f"--admin.keys_file={keys}", "--log.requests=false"), Operator(port)


def _check(process: ServiceProcess, operator: Operator, seconds: float, report: Report, *, known: bool) -> None:
    def reload() -> None:
        answer = operator.reload(DEMO_ID, DEMO_ID)
        assert answer.status_code == 200, answer.text

    soaked = soak(process, seconds, known=known, reload=reload)
    wait_at_rest(process)
    report(f"{seconds:.0f} s, {RELOADS} reloads, {soaked.figure()}")
    assert set(soaked.codes) <= EXPECTED
    assert faults_counted(scrape(process)) == 0
    assert process.complaints == []
    assert Growth.over(soaked.samples).faults() == []


@pytest.mark.parametrize(
    "seconds", [pytest.param(SHORT_CONTROL_S, id="short"), pytest.param(CONTROL_S, id="long", marks=pytest.mark.long)]
)
@pytest.mark.parametrize(("script", "fault"), [(LEAKS_MEMORY, "memory"), (LEAKS_DESCRIPTORS, "descriptors")])
def test_a_leak_fails_the_check(script: Script, fault: str, seconds: float, tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, script, "--log.requests=false") as process:
        for _ in range(CONTROLS):
            faults = Growth.over(soak(process, seconds, known=True).samples).faults()
            if any(fault in found for found in faults):
                break
            seconds *= 2
    report(f"control, {seconds:.0f} s: {', '.join(faults)}")
    assert any(fault in found for found in faults)
