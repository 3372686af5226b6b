"""Open-loop load above the capacity.

The service rejects what it cannot compute, with a time to retry after, and probes do not fail.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

import pytest

from benchmarks.load.clients import OK, Outcome, closed_loop
from benchmarks.load.open_loop import Plan, Stage, Stages, goodput, open_loops, percentile_s
from benchmarks.stand_in.script import Script
from electra_serve.tensors import BatchShape
from tests.integration.process import ServiceProcess, start
from tests.load.conftest import Report
from tests.load.payload import numbered, numbered_until
from tests.load.probes import Probes
from tests.load.stand_in import stand_in

OVERLOADS: Final = (2, 5, 10)
CALM: Final = 0.5
"""Fraction of the capacity at which latency is normal."""
UNUSUAL: Final = 2.0
"""Ratio to the normal median latency that is not normal."""
SETTLED_S: Final = 0.5
"""Time after which the queue is as full as it becomes in a stage."""
STARTED_S: Final = 2.0
"""Time for the senders to start."""


@dataclass(frozen=True, slots=True)
class Target:
    """An overloaded service.

    Attributes:
        length: Ids of each request.
        queue: Limit of queued requests.
        capacity: Most requests per second.
        known: The correct outputs are known.
        window_s: Window in which there are enough requests to compare latencies.
    """

    length: int
    queue: int
    capacity: float
    known: bool
    window_s: float = 1.0

    @property
    def drain_s(self) -> float:
        """Seconds in which a full queue drains."""
        return self.queue / self.capacity


@dataclass(frozen=True, slots=True)
class Course:
    """Durations of the stages.

    Attributes:
        calm_s: Seconds before the overload.
        overload_s: Seconds of each overload.
        normal_again_s: Seconds after the overload until latency is normal, in the long form.
    """

    calm_s: float
    overload_s: float
    normal_again_s: float

    @property
    def seconds(self) -> tuple[float, ...]:
        """Seconds of each stage."""
        return (self.calm_s, *(self.overload_s,) * len(OVERLOADS), self.normal_again_s + 2)


GOODPUT: Final = 0.95
"""Least fraction of the capacity, in the long form."""
REJECTION_P99_S: Final = 0.05

SHORT: Final = Course(calm_s=1.0, overload_s=2.5, normal_again_s=0.0)
LONG: Final = Course(calm_s=12.0, overload_s=30.0, normal_again_s=10.0)

SCRIPT: Final = Script(batch_s=0.02, position_s=0.04 / 256)
BATCH: Final = BatchShape(4, 64)
"""The stand-in's largest batch: eight requests fill it in 60 ms, which makes 133 requests a second."""
STAND_IN: Final = Target(length=32, queue=256, capacity=SCRIPT.capacity(BATCH, 32), known=True)
"""Its full queue drains in two seconds."""
SMALL: Final = '--models={"preset": "electra_small_discriminator_uncased_en", "load_weights": false, "threads": 1}'
"""Real arithmetic on one core: some ten requests a second of 500 positions. The other cores are left to the senders and
the servers, since the test does not measure how they share."""
SMALL_LENGTH: Final = 500
SMALL_QUEUE: Final = 32
SMALL_WINDOW_S: Final = 3.0


def queue_flags(queue: int) -> tuple[str, str]:
    """Flags that limit the queue."""
    return f"--batching.max_queue_sequences={queue}", f"--limits.max_sequences={queue}"


@pytest.mark.parametrize(
    "course", [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.long)]
)
def test_overload(course: Course, tmp_path: Path, report: Report) -> None:
    flags = (f"--batching.max_batch_tokens={BATCH.positions}", *queue_flags(STAND_IN.queue))
    with stand_in(tmp_path, SCRIPT, *flags) as process:
        answered = _overload(process, STAND_IN, course, report)
    _check_goodput(answered, STAND_IN.capacity, report)


@pytest.mark.long
def test_overload_of_the_real_engine(tmp_path: Path, report: Report) -> None:
    """Its peak is measured in a closed loop before and after, since a machine's speed changes."""
    with start(tmp_path, SMALL, "--log.format=json", *queue_flags(SMALL_QUEUE)) as process:
        process.wait_ready()
        before = asyncio.run(_measured_capacity(process))
        answered = _overload(
            process, Target(SMALL_LENGTH, SMALL_QUEUE, before, known=False, window_s=SMALL_WINDOW_S), LONG, report
        )
        after = asyncio.run(_measured_capacity(process))
    report(f"peak, in a closed loop: {before:.1f} requests of {SMALL_LENGTH} ids a second before, {after:.1f} after")
    _check_goodput(answered, (before + after) / 2, report)


async def _measured_capacity(process: ServiceProcess, clients: int = 16, seconds: float = 15.0) -> float:
    """Measures responses per second in a closed loop."""
    began = time.monotonic()
    requests = numbered_until(began + seconds, SMALL_LENGTH, known=False)
    outcomes = await closed_loop(process.endpoints, clients, requests)
    return sum(outcome.code == OK for outcome in outcomes) / (time.monotonic() - began)


def _overload(process: ServiceProcess, target: Target, course: Course, report: Report) -> Sequence[float]:
    """Checks codes and probes; returns the goodput of each overload, in correct responses per second."""
    rates = (CALM, *OVERLOADS, CALM)
    with Probes(process) as probes:
        begins_s = time.monotonic() + STARTED_S
        stages = tuple(Stage(rate * target.capacity / 2, s) for rate, s in zip(rates, course.seconds, strict=True))
        make = partial(numbered, length=target.length, known=target.known)
        plans = [
            Plan((endpoint,), stages, begins_s, make, first)
            for endpoint, first in zip(process.endpoints, (0, 8_000_000), strict=True)
        ]
        with open_loops(*plans) as loops:
            by_transport = dict(zip(("rest", "grpc"), (loop.result() for loop in loops), strict=True))
    report(f"{len(probes.seconds)} probes, {len(probes.failures)} failed, the slowest {probes.slowest_s * 1e3:.0f} ms")
    assert probes.failures == []
    for transport, by_stage in by_transport.items():
        _check_codes(transport, [outcome for stage in by_stage for outcome in stage], target, report)
    by_stage = [[*rest, *grpc] for rest, grpc in zip(*by_transport.values(), strict=True)]
    _report_normal_again(by_stage, begins_s + sum(course.seconds[:-1]), target, course, report)
    together = [outcome for stage in by_stage for outcome in stage]
    ends_s = [begins_s + seconds for seconds in accumulate(course.seconds)]
    during = pairwise(ends_s[: len(OVERLOADS) + 1])
    return [goodput(together, from_s + SETTLED_S, to_s) for from_s, to_s in during]


def _check_goodput(answered: Sequence[float], peak: float, report: Report) -> None:
    parts = [rate / peak for rate in answered]
    for overload, part in zip(OVERLOADS, parts, strict=True):
        report(f"{overload}× capacity: goodput {part:.1%} of the engine's peak")
    report.promise(min(parts) >= GOODPUT, f"goodput stays at {GOODPUT:.0%} of the peak")


def _check_codes(transport: str, sent: Sequence[Outcome], target: Target, report: Report) -> None:
    """Checks that every request is computed or rejected, and that rejections have a time to retry after."""
    rejected = [outcome for outcome in sent if outcome.code == "overloaded"]
    assert {outcome.code for outcome in sent} == {OK, "overloaded"}
    delays_s = sorted(outcome.retry_after_s or 0.0 for outcome in rejected)
    p99_s = percentile_s(rejected, 99)
    report(
        f"{transport}: {len(sent)} sent, {len(rejected)} rejected within {p99_s * 1e3:.1f} ms p99, "
        f"to retry after {delays_s[len(delays_s) // 2]:.2f} s (a full queue drains in {target.drain_s:.2f} s)"
    )
    assert delays_s[0] > 0.0, "every rejection has a time to retry after"
    report.promise(target.drain_s / 4 <= delays_s[len(delays_s) // 2], "requests retry not much too soon")
    report.promise(delays_s[-1] <= 2 * target.drain_s, "requests retry not much too late")
    report.promise(p99_s <= REJECTION_P99_S, "rejections do not wait")


def _report_normal_again(by_stage: Stages, ended_s: float, target: Target, course: Course, report: Report) -> None:
    """Reports the time after the overload from which on nothing is rejected and latency is as before."""
    normal_s = percentile_s(by_stage[0], 50)
    unusual_s = 0.0
    for window in range(math.ceil(course.seconds[-1] / target.window_s)):
        from_s, to_s = window * target.window_s, (window + 1) * target.window_s
        during = [outcome for outcome in by_stage[-1] if from_s <= outcome.sent_s - ended_s < to_s]
        if {outcome.code for outcome in during} - {OK} or percentile_s(during, 50) > UNUSUAL * normal_s:
            unusual_s = to_s
    report(f"normal again (nothing rejected, median {normal_s * 1e3:.0f} ms) {unusual_s:.0f} s after the overload")
    report.promise(unusual_s <= course.normal_again_s, "latency is normal again")
