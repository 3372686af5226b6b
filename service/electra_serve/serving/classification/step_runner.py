"""Shares the event loop between the steps of all requests that are classified.

Work is counted in values: a label of a position takes 3 ns. Steps yield it, as a tokenizer's steps yield characters.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from electra_serve.presets.tokenizers.steps import Steps

T = TypeVar("T")

STEP_WORK: Final = 800_000
"""Values in one event-loop iteration, in less than 3 ms."""
BLOCK_WORK: Final = STEP_WORK // 4
"""Values in a step."""
ITEM_WORK: Final = 1000
"""Values that a label, a token, or a span counts as: objects cost more than numbers."""
CHARACTERS_PER_VALUE: Final = 4


class StepRunner:
    """Runs the steps of requests in turns, together about `STEP_WORK` in an event-loop iteration."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._done = 0  # work since the last pause

    async def run(self, steps: Steps[T]) -> T:
        """Runs all steps of a request and returns their result."""
        while True:
            async with self._turn:
                try:
                    while self._done < STEP_WORK:
                        self._done += next(steps)
                except StopIteration as end:
                    result: T = end.value
                    return result
                await asyncio.sleep(0)
                self._done = 0
