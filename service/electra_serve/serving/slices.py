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

T = TypeVar("T")
R = TypeVar("R")

SLICE: Final = 32  # sequences
SLICES_AT_ONCE: Final = 4  # together as many sequences as the planner considers
WAIT_S: Final = (0.01, 0.5)  # least and most seconds before a slice is submitted again


async def in_slices(
    items: Sequence[T],
    compute: Callable[[int, Sequence[T]], Awaitable[R]],
    deadline: Deadline,
    *,
    size: int = SLICE,
    at_once: int = SLICES_AT_ONCE,
) -> list[R]:
    """Computes `items` in slices, and returns their results in order.

    `compute` takes the index of a slice's first item, and the slice. Its first error ends the request and cancels the
    other slices; `Overloaded` does so only if a retry would miss the deadline.
    """
    starts = iter(range(0, len(items), size))
    results: dict[int, R] = {}

    async def work() -> None:
        for start in starts:
            results[start] = await _when_admitted(partial(compute, start, items[start : start + size]), deadline)

    workers = [asyncio.create_task(work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[start] for start in sorted(results)]


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
