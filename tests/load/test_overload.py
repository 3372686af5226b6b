"""More load than there is capacity for, sent without waiting for answers.

What can be answered is, the rest is refused at once and told when to come back, and nobody who probes notices.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count, pairwise
from pathlib import Path
from typing import Final

import pytest

from electra_serve.tensors import BatchShape
from tests.integration.process import ServiceProcess, start
from tests.load.callers import OK, Caller, Endpoint
from tests.load.conftest import Report
from tests.load.open_loop import OpenLoop, Outcome, Plan, Stage, goodput, percentile_s
from tests.load.payload import numbered
from tests.load.probes import Probes
from tests.load.script import Script
from tests.load.stand_in import stand_in

OVERLOADS: Final = (2, 5, 10)
CALM: Final = 0.5
"""The part of the capacity at which latency is normal."""
UNUSUAL: Final = 2.0
"""A median of so many times the normal one is not normal."""
SETTLED_S: Final = 0.5
"""After a stage's beginning: the queue is as full as it will be."""
STARTED_S: Final = 2.0
"""The senders have started by then."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is overloaded.

    Attributes:
        length: Ids of each request.
        queue: Most requests that wait.
        capacity: Requests per second, at most.
        known: Whether the right answers are known.
        window_s: Whose requests are enough to tell by whether latency is normal.
    """

    length: int
    queue: int
    capacity: float
    known: bool
    window_s: float = 1.0

    @property
    def drain_s(self) -> float:
        """How long a full queue takes."""
        return self.queue / self.capacity


@dataclass(frozen=True, slots=True)
class Course:
    """How long each stage lasts, and the promises of the long form.

    Attributes:
        calm_s: Before the overload.
        overload_s: Of each overload.
        normal_again_s: After the overload.
    """

    calm_s: float
    overload_s: float
    normal_again_s: float

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of each stage."""
        return (self.calm_s, *(self.overload_s,) * len(OVERLOADS), self.normal_again_s + 2)


GOODPUT: Final = 0.95
"""The least part of the capacity."""
REJECTION_P99_S: Final = 0.05

SHORT: Final = Course(calm_s=1.0, overload_s=2.5, normal_again_s=0.0)
LONG: Final = Course(calm_s=12.0, overload_s=30.0, normal_again_s=10.0)

SCRIPT: Final = Script(batch_s=0.02, position_s=0.04 / 256)
BATCH: Final = BatchShape(4, 64)
"""The stand-in's largest batch: eight requests fill it, and it takes 60 ms, so 133 requests a second."""
STAND_IN: Final = Target(length=32, queue=256, capacity=SCRIPT.capacity(BATCH, 32), known=True)
"""Whose full queue is two seconds' worth."""
SMALL: Final = '--models={"preset": "electra_small_discriminator_uncased_en", "load_weights": false, "threads": 1}'
"""Real arithmetic on one core, of 500 positions a request: some ten requests a second. What the senders and the servers
need is left to the other cores, since this is not to measure how they share."""
SMALL_LENGTH: Final = 500
SMALL_QUEUE: Final = 32
SMALL_WINDOW_S: Final = 3.0


def queue_flags(queue: int) -> tuple[str, str]:
    """Bounds the queue."""
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
    """Its peak is what it answers in a closed loop, before and after: a machine's speed moves."""
    with start(tmp_path, SMALL, "--log.format=json", *queue_flags(SMALL_QUEUE)) as process:
        process.wait_ready()
        before = asyncio.run(_measured_capacity(process))
        answered = _overload(
            process, Target(SMALL_LENGTH, SMALL_QUEUE, before, known=False, window_s=SMALL_WINDOW_S), LONG, report
        )
        after = asyncio.run(_measured_capacity(process))
    report(f"peak, in a closed loop: {before:.1f} requests of {SMALL_LENGTH} ids a second before, {after:.1f} after")
    _check_goodput(answered, (before + after) / 2, report)


async def _measured_capacity(process: ServiceProcess, callers: int = 16, seconds: float = 15.0) -> float:
    """Answers per second to callers who each ask again when they are answered."""
    ends = [end.caller() for end in Endpoint.both(process.rest_port, process.grpc_port)]
    numbers = count()
    began = time.monotonic()

    async def ask(caller: Caller) -> int:
        answered = 0
        while time.monotonic() < began + seconds:
            answer = await caller.ask(numbered(next(numbers), SMALL_LENGTH, known=False))
            answered += answer.code == OK
        return answered

    answered = sum(await asyncio.gather(*(ask(ends[i % 2]) for i in range(callers))))
    await asyncio.gather(*(end.close() for end in ends))
    return answered / (time.monotonic() - began)


def _overload(process: ServiceProcess, target: Target, course: Course, report: Report) -> Sequence[float]:
    """Checks all but the goodput, and returns it: right answers per second, by overload."""
    rates = (CALM, *OVERLOADS, CALM)
    with Probes(process) as probes:
        begins_s = time.monotonic() + STARTED_S
        stages = tuple(Stage(rate * target.capacity / 2, s) for rate, s in zip(rates, course.seconds, strict=True))
        endpoints = Endpoint.both(process.rest_port, process.grpc_port)
        plans = [
            Plan((end,), stages, begins_s, target.length, first, known=target.known)
            for end, first in zip(endpoints, (0, 8_000_000), strict=True)
        ]
        with OpenLoop.start(*plans) as loops:
            outcomes = {loop.plan.endpoints[0].transport: loop.outcomes() for loop in loops}
    report(f"{len(probes.seconds)} probes, {len(probes.failures)} failed, the slowest {probes.slowest_s * 1e3:.0f} ms")
    assert probes.failures == []
    together = [outcome for sent in outcomes.values() for outcome in sent]
    for transport, sent in outcomes.items():
        _check_codes(transport, sent, target, report)
    _check_normal_again(together, begins_s + sum(course.seconds[:-1]), target, course, report)
    ends_s = [begins_s + seconds for seconds in accumulate(course.seconds)]
    during = pairwise(ends_s[: len(OVERLOADS) + 1])
    return [goodput(together, from_s + SETTLED_S, to_s) for from_s, to_s in during]


def _check_goodput(answered: Sequence[float], peak: float, report: Report) -> None:
    parts = [rate / peak for rate in answered]
    for overload, part in zip(OVERLOADS, parts, strict=True):
        report(f"{overload}× capacity: goodput {part:.1%} of the engine's peak")
    report.promise(min(parts) >= GOODPUT, f"goodput stays at {GOODPUT:.0%} of the peak")


def _check_codes(transport: str, sent: Sequence[Outcome], target: Target, report: Report) -> None:
    """Everything is answered right or refused, refusals come at once and say when to come back."""
    refused = [outcome for outcome in sent if outcome.code == "overloaded"]
    assert {outcome.code for outcome in sent} == {OK, "overloaded"}
    told = sorted(outcome.retry_after_s or 0.0 for outcome in refused)
    p99_s = percentile_s(refused, 99)
    report(
        f"{transport}: {len(sent)} sent, {len(refused)} refused within {p99_s * 1e3:.1f} ms p99, "
        f"told to come back in {told[len(told) // 2]:.2f} s (a full queue drains in {target.drain_s:.2f} s)"
    )
    assert told[0] > 0.0, "every refusal says when to come back"
    report.promise(target.drain_s / 4 <= told[len(told) // 2], "retry-after is not much sooner than there is room")
    report.promise(told[-1] <= 2 * target.drain_s, "retry-after is not much later than there is room")
    report.promise(p99_s <= REJECTION_P99_S, "rejections come at once")


def _check_normal_again(
    sent: Sequence[Outcome], ended_s: float, target: Target, course: Course, report: Report
) -> None:
    """From some time after the overload on, nothing is refused and latency is what it was before."""
    normal_s = percentile_s([outcome for outcome in sent if outcome.stage == 0], 50)
    last = len(course.seconds) - 1
    unusual_s = 0.0
    for window in range(math.ceil(course.seconds[last] / target.window_s)):
        from_s, to_s = window * target.window_s, (window + 1) * target.window_s
        during = [outcome for outcome in sent if outcome.stage == last and from_s <= outcome.sent_s - ended_s < to_s]
        if {outcome.code for outcome in during} - {OK} or percentile_s(during, 50) > UNUSUAL * normal_s:
            unusual_s = to_s
    report(f"normal again (nothing refused, median {normal_s * 1e3:.0f} ms) {unusual_s:.0f} s after the overload")
    report.promise(unusual_s <= course.normal_again_s, "latency is normal again")
