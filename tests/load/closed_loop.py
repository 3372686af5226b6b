"""Callers who ask again as soon as they are answered: what they get through is the capacity of what they ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count

from tests.load.callers import Caller, Endpoint
from tests.load.open_loop import Outcome
from tests.load.payload import numbered


async def closed_loop(endpoints: Sequence[Endpoint], callers: int, length: int, until_s: float) -> list[Outcome]:
    """Asks until a time on the machine's monotonic clock, and waits for the last answers.

    Args:
        endpoints: Where to; every caller has one of them, in turn.
        callers: How many requests are on their way at any time.
        length: Ids of each request.
        until_s: When to stop.
    """
    outcomes: list[Outcome] = []
    numbers = count()
    connected = [endpoint.caller() for endpoint in endpoints]

    async def call(caller: Caller) -> None:
        while (sent_s := time.monotonic()) < until_s:
            answer = await caller.ask(numbered(next(numbers), length))
            outcomes.append(Outcome(0, sent_s, answer.seconds, answer.code, answer.retry_after_s))

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(call(connected[number % len(connected)]))
    await asyncio.gather(*(caller.close() for caller in connected))
    return outcomes
