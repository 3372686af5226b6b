"""Serves a large request in slices, so that it neither fills the queue nor makes others wait for all of it.

Some slices are queued at a time. One that is not admitted is retried until the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from electra_serve.errors import Overloaded
from electra_serve.serving.request_context import Deadline

R = TypeVar("R")

SLICE: Final = 32  # sequences
SLICES_AT_ONCE: Final = 2  # of a client; more would delay other clients, and gain nothing
WAIT_S: Final = (0.01, 0.5)  # least and most seconds before a slice is submitted again


def cut_slices(sizes: Sequence[int], *, most_items: int, most_size: int) -> list[range]:
    """Returns the indices of each slice: at most `most_items`, of at most `most_size` together unless it is one.

    Example:
        >>> cut_slices([5, 5, 5, 20, 1], most_items=2, most_size=10)
        [range(0, 2), range(2, 3), range(3, 4), range(4, 5)]
    """
    slices: list[range] = []
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and (index - start == most_items or total + size > most_size):
            slices.append(range(start, index))
            start, total = index, 0
        total += size
    return [*slices, range(start, len(sizes))] if sizes else []


async def in_slices(
    slices: Sequence[range],
    compute: Callable[[range], Awaitable[R]],
    deadline: Deadline,
    *,
    at_once: int = SLICES_AT_ONCE,
) -> list[R]:
    """Computes slices, some at once, and returns their results in order.

    The first error ends the request and cancels the other slices; `Overloaded` does so only if a retry would miss the
    deadline.
    """
    results: dict[int, R] = {}
    indices = iter(range(len(slices)))

    async def work() -> None:
        for index in indices:
            results[index] = await _when_admitted(partial(compute, slices[index]), deadline)

    workers = [asyncio.create_task(work()) for _ in slices[:at_once]]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(slices))]


async def _when_admitted(compute: Callable[[], Awaitable[R]], deadline: Deadline) -> R:
    least_s, most_s = WAIT_S
    while True:
        try:
            return await compute()
        except Overloaded as error:
            wait_s = min(max(error.retry_after_s or least_s, least_s), most_s)
            if wait_s >= deadline.remaining_s():
                raise
        await asyncio.sleep(wait_s)
