"""onnxruntime float32, each row by itself: `python -m benchmarks.contenders.onnx_rows --port P`.

The best simple service on a CPU: nothing is padded. Rows run on a pool of threads. The service tries several divisions
of the cores at its start and uses the fastest.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from benchmarks.contenders.app import port_flag, serve
from benchmarks.contenders.wire import Asked, encode
from benchmarks.encoders.onnx import OnnxEncoder, open_session
from benchmarks.machine import cores
from benchmarks.workload import Ids, natural_lengths, token_ids
from electra_serve.tensors import Output, Outputs, RowOutput

SIZE: Final = "small"
TRIED: Final = 64
"""Rows of the natural mix for the trial of each layout."""
POOLED: Final = frozenset({Output.POOLED})


@dataclass(frozen=True, slots=True)
class Layout:
    """Division of the cores.

    Attributes:
        rows: Rows that run at a time.
        threads: Threads that each runs on.
    """

    rows: int
    threads: int


class RowPool:
    """Runs rows one by one on a pool of threads.

    Args:
        layout: How the cores are shared.
    """

    def __init__(self, layout: Layout) -> None:
        self._encoder = OnnxEncoder(open_session(SIZE, "float32", threads=layout.threads))
        self._pool = ThreadPoolExecutor(max_workers=layout.rows)

    async def encode(self, asked: Asked) -> Sequence[RowOutput]:
        """Returns each row's outputs."""
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._run, row, asked.outputs) for row in asked.rows)
        )

    def seconds(self, rows: Sequence[Ids]) -> float:
        """Measures the seconds of `rows` that arrive at once."""
        started = time.perf_counter()
        list(self._pool.map(lambda row: self._run(row, POOLED), rows))
        return time.perf_counter() - started

    def _run(self, row: Ids, outputs: Outputs) -> RowOutput:
        return encode(self._encoder, [row], outputs)[0]


def layouts() -> list[Layout]:
    """Returns the layouts that use every core once."""
    return [Layout(rows, cores() // rows) for rows in range(1, cores() + 1) if cores() % rows == 0]


def fastest() -> RowPool:
    """Returns the pool of the fastest layout, of three attempts each."""
    pools = {layout: RowPool(layout) for layout in layouts()}
    rows = token_ids(natural_lengths(TRIED))
    took = {layout: min(pool.seconds(rows) for _ in range(3)) for layout, pool in pools.items()}
    chosen = min(took, key=took.__getitem__)
    sys.stderr.writelines(f"{layout}: {seconds:.2f} s\n" for layout, seconds in took.items())
    sys.stderr.write(f"serving with {chosen}\n")
    return pools[chosen]


if __name__ == "__main__":
    pool = fastest()
    serve(lambda: pool.encode, port_flag())
