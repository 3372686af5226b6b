"""Throughput of one, two and three replicas behind the proxy, with engines that sleep instead of computing.

Sleeping engines leave the machine's cores to the services, the proxy and the clients, so that three replicas can be
measured on two cores. Two figures show that the clients are not the limit: their own CPU time, and a control with
engines that hardly sleep.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import uvloop

from benchmarks.load.clients import OK, Endpoint, Outcome, closed_loop
from benchmarks.load.open_loop import goodput, percentile_s
from benchmarks.stand_in.script import Script
from electra_serve.tensors import BatchShape
from tests.load.conftest import Report
from tests.load.payload import numbered_until
from tests.load.proxy import Ports, needs_haproxy
from tests.load.replicas import replicas_behind_proxy

pytestmark = [needs_haproxy, pytest.mark.long]

BATCH: Final = BatchShape(4, 128)
"""Sixteen sequences fill it."""
SLEEPS: Final = Script(batch_s=0.02, position_s=1.5e-4)
"""Positions take most of the time, as on a CPU."""
HARDLY_SLEEPS: Final = Script(batch_s=0.002, position_s=1e-6)
CLIENTS: Final = 48
"""Clients of each replica: one batch that runs, one that is packed, one that is queued."""
LENGTH: Final = 32
WARM_S: Final = 2.0
SECONDS: Final = 10.0
LEAST: Final = {2: 1.7, 3: 2.5}
"""Least ratio to the throughput of one."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Figures of one run.

    Attributes:
        sequences_s: Correct responses per second.
        p99_s: 99th percentile of the latency.
        client_cores: CPU seconds of the clients per second.
    """

    sequences_s: float
    p99_s: float
    client_cores: float


def test_two_and_three_scale(tmp_path: Path, report: Report) -> None:
    found = {number: _measure(tmp_path / str(number), number, SLEEPS) for number in (1, 2, 3)}
    control = _measure(tmp_path / "control", 3, HARDLY_SLEEPS)
    one = found[1].sequences_s
    for number, run in found.items():
        report(
            f"{number} × {SLEEPS.capacity(BATCH, LENGTH):.0f} sequences/s: {run.sequences_s:.0f} sequences/s, "
            f"{run.sequences_s / one:.2f} times one; p99 {run.p99_s * 1e3:.0f} ms; clients {run.client_cores:.2f} cores"
        )
    report(f"control, engines that hardly sleep: {control.sequences_s:.0f} sequences/s from the same clients")
    assert {number: found[number].sequences_s / one >= least for number, least in LEAST.items()} == {2: True, 3: True}
    assert control.sequences_s > 1.3 * found[3].sequences_s


def _measure(folder: Path, number: int, script: Script) -> Throughput:
    folder.mkdir()
    with replicas_behind_proxy(folder, number, script, f"--batching.max_batch_tokens={BATCH.positions}") as (front, _):
        began_s, cpu_s = time.monotonic(), time.process_time()
        outcomes = _ask(front, CLIENTS * number, began_s + WARM_S + SECONDS)
        cores = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
    assert {outcome.code for outcome in outcomes} == {OK}
    measured = [outcome for outcome in outcomes if outcome.sent_s >= began_s + WARM_S]
    rate = goodput(outcomes, began_s + WARM_S, began_s + WARM_S + SECONDS)
    return Throughput(rate, percentile_s(measured, 99), cores)


def _ask(front: Ports, clients: int, until_s: float) -> Sequence[Outcome]:
    endpoints = Endpoint.both(front.rest, front.grpc)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(closed_loop(endpoints, clients, numbered_until(until_s, LENGTH)))
