"""Open loop: Poisson arrivals, sent from a process of its own whether or not earlier requests have responses.

with open_loops(Plan(…), …) as running:        # one process each
by_stage = [found.result() for found in running]
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from typing import NamedTuple, TypeAlias

import numpy as np
import uvloop

from benchmarks.load.clients import OK, Endpoint, Outcome, Request

Stages: TypeAlias = list[list[Outcome]]
"""Outcomes by the stage in which their requests were sent."""


class Stage(NamedTuple):
    """Requests per second, for some seconds."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests of one process.

    Attributes:
        endpoints: Endpoints, in turn.
        stages: Stages, one after the other.
        begins_s: Begin of the first stage, on the machine's monotonic clock.
        make: Makes a request of its number; a module's own function, or a `partial` of one.
        first: Number of the first request.
        timeout_ms: Deadline of each request.
    """

    endpoints: tuple[Endpoint, ...]
    stages: tuple[Stage, ...]
    begins_s: float
    make: Callable[[int], Request]
    first: int = 0
    timeout_ms: int | None = None


@contextmanager
def open_loops(*plans: Plan) -> Iterator[Sequence[Future[Stages]]]:
    """Runs each plan in a process of its own, so that the load does not disturb what measures it."""
    with ProcessPoolExecutor(len(plans), mp_context=get_context("spawn")) as pool:
        yield [pool.submit(run_plan, plan) for plan in plans]


def run_plan(plan: Plan) -> Stages:
    """Sends the plan's requests and waits for all outcomes."""
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_send(plan))


async def _send(plan: Plan) -> Stages:
    clients = [endpoint.client() for endpoint in plan.endpoints]
    numbers = count(plan.first)
    outcomes: Stages = [[] for _ in plan.stages]
    dice = random.Random(plan.first)  # the same times in each run

    async def ask(stage: list[Outcome]) -> None:
        number = next(numbers)
        client = clients[number % len(clients)]
        stage.append(await client.ask(plan.make(number), timeout_ms=plan.timeout_ms))

    ends_s = plan.begins_s
    async with asyncio.TaskGroup() as sent:
        for stage, (rate, seconds) in zip(outcomes, plan.stages, strict=True):
            due_s = ends_s
            ends_s += seconds
            while (due_s := due_s + dice.expovariate(rate)) < ends_s:
                await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
                sent.create_task(ask(stage))
    await asyncio.gather(*(client.close() for client in clients))
    return outcomes


def goodput(outcomes: Sequence[Outcome], from_s: float, to_s: float) -> float:
    """Returns the rate of correct responses between two times, in requests per second.

    Example:
        >>> outcomes = [Outcome("rest", "", float(sent_s), 1.0, "ok") for sent_s in range(10)]
        >>> goodput(outcomes, 2.0, 6.0)
        1.0
    """
    return sum(outcome.code == OK and from_s <= outcome.ended_s < to_s for outcome in outcomes) / (to_s - from_s)


def percentile_s(outcomes: Sequence[Outcome], percent: float) -> float:
    """Returns a percentile of the durations; 0 if there are no outcomes."""
    return float(np.percentile([outcome.seconds for outcome in outcomes], percent)) if outcomes else 0.0
