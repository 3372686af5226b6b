"""Load that does not wait for answers, from a process of its own, so that what measures is not what is measured.

    with OpenLoop.start(Plan(…), …) as loops:      # one process each
        outcomes = [outcome for loop in loops for outcome in loop.outcomes()]

Requests come as a Poisson process does, in stages of so many a second. Each has ids that no other has, and where the
stand-in answers, each answer is compared with what it must say.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from tempfile import TemporaryFile
from typing import IO, NamedTuple, Self

import numpy as np
import uvloop

from tests.integration.process import ROOT
from tests.load.callers import OK, Endpoint, at_random_times
from tests.load.payload import numbered


class Stage(NamedTuple):
    """So many requests a second, for so long."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process sends.

    Attributes:
        endpoints: Where to, one after the other.
        stages: One after the other.
        begins_s: When the first begins, on the machine's monotonic clock.
        length: Ids of each request.
        first: The number of the first request; those of different plans must not overlap.
        timeout_ms: The deadline of each; None for none.
        known: Whether the right answers are known: the stand-in's are.
    """

    endpoints: tuple[Endpoint, ...]
    stages: tuple[Stage, ...]
    begins_s: float
    length: int
    first: int = 0
    timeout_ms: int | None = None
    known: bool = True

    @classmethod
    def read(cls, text: str) -> Self:
        """Reads what `written` wrote."""
        fields = json.loads(text)
        endpoints = tuple(Endpoint(**endpoint) for endpoint in fields.pop("endpoints"))
        stages = tuple(Stage(*stage) for stage in fields.pop("stages"))
        return cls(endpoints=endpoints, stages=stages, **fields)

    def written(self) -> str:
        """As text, for another process."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request.

    Attributes:
        stage: In which it was sent.
        sent_s: When, on the machine's monotonic clock.
        seconds: Until its answer.
        code: What came of it, as in `tests.load.callers`.
        retry_after_s: When to come back, where it was told.
    """

    stage: int
    sent_s: float
    seconds: float
    code: str
    retry_after_s: float | None

    @property
    def answered_s(self) -> float:
        """When its answer came."""
        return self.sent_s + self.seconds


class OpenLoop:
    """A process that sends.

    Args:
        popen: The process.
        printed: Where it prints outcomes when it is done: a file and no pipe, which would be full at 64 KiB, before
            whoever started it reads.
        plan: What it was told.
    """

    def __init__(self, popen: subprocess.Popen[bytes], printed: IO[bytes], plan: Plan) -> None:
        self._popen = popen
        self._printed = printed
        self.plan = plan

    @classmethod
    @contextmanager
    def start(cls, *plans: Plan) -> Iterator[Sequence[Self]]:
        """Starts one process for each plan; kills those that still run at the end of the context."""
        with ExitStack() as stack:
            yield [stack.enter_context(cls._started(plan)) for plan in plans]

    @classmethod
    @contextmanager
    def _started(cls, plan: Plan) -> Iterator[Self]:
        command = [sys.executable, "-m", __name__, plan.written()]
        with TemporaryFile() as printed, subprocess.Popen(command, cwd=ROOT, stdout=printed) as popen:
            try:
                yield cls(popen, printed, plan)
            finally:
                popen.kill()

    def outcomes(self) -> Sequence[Outcome]:
        """Waits until everything it sent has come to something."""
        patience_s = sum(stage.seconds for stage in self.plan.stages) + 2 * max(
            end.patience_s for end in self.plan.endpoints
        )
        assert self._popen.wait(patience_s) == 0
        self._printed.seek(0)
        return [Outcome(*fields) for fields in json.load(self._printed)]


def goodput(outcomes: Sequence[Outcome], from_s: float, to_s: float) -> float:
    """Right answers per second, of those that came between two times.

    Example:
        >>> outcomes = [Outcome(0, sent, 1.0, "ok", None) for sent in range(10)]
        >>> goodput(outcomes, 2.0, 6.0)
        1.0
    """
    return sum(outcome.code == OK and from_s <= outcome.answered_s < to_s for outcome in outcomes) / (to_s - from_s)


def percentile_s(outcomes: Sequence[Outcome], percent: float) -> float:
    """Of how long they took; 0 of none."""
    return float(np.percentile([outcome.seconds for outcome in outcomes], percent)) if outcomes else 0.0


async def _send(plan: Plan) -> list[Outcome]:
    outcomes: list[Outcome] = []
    callers = [endpoint.caller() for endpoint in plan.endpoints]
    numbers = count(plan.first)
    dice = random.Random(plan.first)  # the same times in each run
    gc.collect()
    gc.freeze()
    await asyncio.sleep(max(plan.begins_s - time.monotonic(), 0.0))
    ends_s = plan.begins_s
    async with asyncio.TaskGroup() as stages:
        for stage, (rate, seconds) in enumerate(plan.stages):
            ends_s += seconds

            async def ask(stage: int = stage) -> None:
                number = next(numbers)
                sent_s = time.monotonic()
                caller = callers[number % len(callers)]
                payload = numbered(number, plan.length, known=plan.known)
                answer = await caller.ask(payload, timeout_ms=plan.timeout_ms)
                outcomes.append(Outcome(stage, sent_s, answer.seconds, answer.code, answer.retry_after_s))

            stages.create_task(at_random_times(rate, ends_s, dice.expovariate, ask))
            await asyncio.sleep(max(ends_s - time.monotonic(), 0.0))
    await asyncio.gather(*(caller.close() for caller in callers))
    return outcomes


def main() -> None:
    """Sends as the plan says, and prints what came of it."""
    plan = Plan.read(sys.argv[1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(_send(plan))
    sys.stdout.write(json.dumps([tuple(asdict(outcome).values()) for outcome in outcomes]))


if __name__ == "__main__":
    main()
