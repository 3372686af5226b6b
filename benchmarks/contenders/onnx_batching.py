"""onnxruntime float32 with plain dynamic batching: `python -m benchmarks.contenders.onnx_batching --port P`.

A batch takes up to 32 queued rows in arrival order, after at most `TIMEOUT_S`. It is padded to the longest and runs on
every core.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from benchmarks.contenders.app import port_flag, serve
from benchmarks.contenders.wire import Asked, encode
from benchmarks.encoders.onnx import OnnxEncoder, build_onnx
from benchmarks.workload import Ids
from electra_serve.tensors import Outputs, RowOutput

SIZE: Final = "small"
MAX_ROWS: Final = 32
TIMEOUT_S: Final = 0.002


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A row in the queue."""

    row: Ids
    outputs: Outputs
    answer: asyncio.Future[RowOutput]


class DynamicBatcher:
    """Batches in arrival order.

    Args:
        encoder: What computes, one batch at a time.
    """

    def __init__(self, encoder: OnnxEncoder) -> None:
        self._encoder = encoder
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._feeding = asyncio.create_task(self._feed())

    async def encode(self, asked: Asked) -> Sequence[RowOutput]:
        """Returns each row's outputs."""
        loop = asyncio.get_running_loop()
        waiting = [Waiting(row, asked.outputs, loop.create_future()) for row in asked.rows]
        for one in waiting:
            self._queue.put_nowait(one)
        return await asyncio.gather(*(one.answer for one in waiting))

    async def _feed(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._gather()
            for one, found in zip(batch, await loop.run_in_executor(self._thread, self._run, batch), strict=True):
                one.answer.set_result(found)

    async def _gather(self) -> list[Waiting]:
        loop = asyncio.get_running_loop()
        batch = [await self._queue.get()]
        until = loop.time() + TIMEOUT_S
        while len(batch) < MAX_ROWS:
            try:
                batch.append(self._queue.get_nowait())
            except asyncio.QueueEmpty:
                try:
                    batch.append(await asyncio.wait_for(self._queue.get(), until - loop.time()))
                except TimeoutError:
                    break
        return batch

    def _run(self, batch: Sequence[Waiting]) -> list[RowOutput]:
        rows = [one.row for one in batch]
        outputs = frozenset(output for one in batch for output in one.outputs)
        return encode(self._encoder, rows, outputs)


if __name__ == "__main__":
    session = build_onnx(SIZE, dtype="float32")
    serve(lambda: DynamicBatcher(session).encode, port_flag())
