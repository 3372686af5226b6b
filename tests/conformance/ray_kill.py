"""Encodes Parquet with two Ray actors, one of which is killed.

`python -m tests.conformance.ray_kill INPUT OUTPUT FOLDER`. The first actor that computed `KILLED_AT` batches of a
block, of which Ray has some already, kills itself without notice. It does so when the other actor works too. FOLDER
gets a file for each process that encoded, and `killed`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from electra_serve.bulk.ray import Encoder
from tests.waiting import wait_until

ACTORS: Final = 2
BLOCKS: Final = 8
BATCH_ROWS: Final = 20
KILLED_AT: Final = 3
LIMIT_S: Final = 300.0


class MortalEncoder(Encoder):
    """An encoder that may kill its process after a batch, before Ray gets it."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__("electra_demo", **options)
        self._folder = Path(folder)
        self._batches = 0

    def __call__(self, batch: pa.Table) -> pa.Table:
        encoded = super().__call__(batch)
        self._batches += 1
        (self._folder / f"{os.getpid()}.pid").touch()
        if self._batches == KILLED_AT and not (self._folder / "killed").exists():
            wait_until(lambda: len(list(self._folder.glob("*.pid"))) >= ACTORS, LIMIT_S)
            if self._claim():
                os.kill(os.getpid(), signal.SIGKILL)
        return encoded

    def _claim(self) -> bool:
        try:
            (self._folder / "killed").open("x").close()
        except FileExistsError:
            return False
        return True


def main() -> None:
    source, output, folder = sys.argv[1:]
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=128 * 2**20)
    table = pq.read_table(source)
    rows = len(table) // BLOCKS
    # Ray would read so small a file as one block, for one actor.
    dataset = ray.data.from_arrow([table.slice(block * rows, rows) for block in range(BLOCKS)])
    encoded = dataset.map_batches(
        MortalEncoder,
        fn_constructor_kwargs={"folder": folder, "truncate": True},
        batch_format="pyarrow",
        batch_size=BATCH_ROWS,
        # With more tasks in flight, the first actor would get all blocks before the other one is ready.
        compute=ray.data.ActorPoolStrategy(size=ACTORS, max_tasks_in_flight_per_actor=1),
    )
    encoded.write_parquet(output)


if __name__ == "__main__":
    main()
