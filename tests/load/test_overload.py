"""More load than there is capacity for, sent without waiting for answers.

What can be answered is, the rest is refused at once and told when to come back, and nobody who probes notices.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.load.callers import OK, Endpoint
from tests.load.conftest import Report
from tests.load.open_loop import OpenLoop, Outcome, Plan, Stage, goodput, percentile_s
from tests.load.probes import Probes
from tests.load.script import Script
from tests.load.stand_in import stand_in

SCRIPT: Final = Script(batch_s=0.02, position_s=0.04 / 256)
LENGTH: Final = 32
ROWS: Final = 8
"""Most rows in a batch, which then takes 60 ms: 133 requests a second."""
QUEUE: Final = 256
"""Most rows that wait: two seconds' worth."""
CAPACITY: Final = SCRIPT.capacity(ROWS, LENGTH)
DRAIN_S: Final = QUEUE / CAPACITY
FLAGS: Final = (
    f"--batching.max_batch_sequences={ROWS}",
    f"--batching.max_queue_sequences={QUEUE}",
    f"--limits.max_sequences={QUEUE}",
)
OVERLOADS: Final = (2, 5, 10)
CALM: Final = 0.5
"""The part of the capacity at which latency is normal."""
NORMAL_AGAIN_S: Final = 10.0
UNUSUAL: Final = 1.5
"""A median of so many times the normal one is not normal."""
SETTLED_S: Final = 0.5
"""After a stage's beginning: the queue is as full as it will be."""


@dataclass(frozen=True, slots=True)
class Course:
    """How long each stage lasts, and what is demanded.

    Attributes:
        calm_s: Before, and after, the overload.
        overload_s: Of each overload.
        goodput: The least part of the capacity.
        refusal_p99_s: The slowest refusals.
    """

    calm_s: float
    overload_s: float
    goodput: float
    refusal_p99_s: float


SHORT: Final = Course(calm_s=3.0, overload_s=3.0, goodput=0.8, refusal_p99_s=1.0)
"""Bounds that a machine busy with other things keeps, too."""
LONG: Final = Course(calm_s=12.0, overload_s=30.0, goodput=0.95, refusal_p99_s=0.05)


@pytest.mark.parametrize(
    "course", [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.long)]
)
def test_overload(course: Course, tmp_path: Path, report: Report) -> None:
    rates = [CALM, *OVERLOADS, CALM]
    seconds = [course.calm_s, *[course.overload_s] * len(OVERLOADS), NORMAL_AGAIN_S + course.calm_s]
    with stand_in(tmp_path, SCRIPT, *FLAGS) as process, Probes(process) as probes:
        begins_s = time.monotonic() + 2.0  # by then the senders have started
        stages = tuple(Stage(rate * CAPACITY / 2, s) for rate, s in zip(rates, seconds, strict=True))
        endpoints = Endpoint.both(process.rest_port, process.grpc_port)
        plans = [
            Plan((end,), stages, begins_s, LENGTH, first) for end, first in zip(endpoints, (0, 8_000_000), strict=True)
        ]
        with OpenLoop.start(*plans) as loops:
            outcomes = {loop.plan.endpoints[0].transport: loop.outcomes() for loop in loops}
    assert probes.failures == []
    together = [outcome for sent in outcomes.values() for outcome in sent]
    for number, overload in enumerate(OVERLOADS, start=1):
        from_s = begins_s + sum(seconds[:number])
        part = goodput(together, from_s + SETTLED_S, from_s + seconds[number]) / CAPACITY
        report(f"{overload}× capacity: goodput {part:.1%} of the engine's peak")
        assert part >= course.goodput
    for transport, sent in outcomes.items():
        _check_codes(transport, sent, course, report)
    _check_normal_again(together, begins_s + sum(seconds[:-1]), report)
    report(f"{len(probes.seconds)} probes, none failed, the slowest took {probes.slowest_s * 1e3:.0f} ms")


def _check_codes(transport: str, sent: Sequence[Outcome], course: Course, report: Report) -> None:
    """Everything is answered right or refused, refusals come at once and say when to come back."""
    refused = [outcome for outcome in sent if outcome.code == "overloaded"]
    assert {outcome.code for outcome in sent} == {OK, "overloaded"}
    told = sorted(outcome.retry_after_s or 0.0 for outcome in refused)
    assert told[0] > 0.0, "every refusal says when to come back"
    assert told[-1] <= 2 * DRAIN_S, "and not later than twice the time in which a full queue drains"
    p99_s = percentile_s(refused, 99)
    report(
        f"{transport}: {len(sent)} sent, {len(refused)} refused within {p99_s * 1e3:.1f} ms p99, "
        f"told to come back in {told[len(told) // 2]:.2f} s (a full queue drains in {DRAIN_S:.2f} s)"
    )
    assert p99_s <= course.refusal_p99_s


def _check_normal_again(sent: Sequence[Outcome], ended_s: float, report: Report) -> None:
    """From some second after the overload on, nothing is refused and latency is what it was before."""
    normal_s = percentile_s([outcome for outcome in sent if outcome.stage == 0], 50)
    last = max(outcome.stage for outcome in sent)
    seconds = [
        [outcome for outcome in sent if outcome.stage == last and second <= outcome.sent_s - ended_s < second + 1]
        for second in range(int(NORMAL_AGAIN_S) + 2)
    ]
    unusual = [
        second
        for second, during in enumerate(seconds, start=1)
        if {outcome.code for outcome in during} != {OK} or percentile_s(during, 50) > UNUSUAL * normal_s
    ]
    took_s = max(unusual, default=0)
    report(f"normal again (nothing refused, median {normal_s * 1e3:.0f} ms) {took_s} s after the overload")
    assert took_s <= NORMAL_AGAIN_S
