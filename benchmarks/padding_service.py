"""This service with batches cut in order of arrival and padded to their longest row: only the planner differs.

`python -m benchmarks.padding_service serve …` takes the flags of `electra-serve serve`. It shows what the planner is
worth; nobody should want it, so it is no setting of the product.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import uvloop

from electra_serve.batching.cost_model import CostModel, fit
from electra_serve.batching.planner import MicroBatch, Planner
from electra_serve.engine.base import ShapeGrid
from electra_serve.engine.factory import LoadedModel
from electra_serve.observability.logs import configure_logs
from electra_serve.runtime.background_writer import BackgroundWriter
from electra_serve.server.bootstrap import build_process
from electra_serve.settings.loader import add_flags, read_settings
from electra_serve.settings.schema import BatchingSettings, Settings


class ArrivalOrderPlanner(Planner):
    """Full batches in order of arrival, whatever their padding costs: what dynamic batching mostly is.

    Args:
        cost: What a batch costs: tells when the next one is to be cut, and nothing else.
        grid: The shapes that the engine takes.

    Example:
        >>> grid = ShapeGrid(max_rows=2, max_length=512)
        >>> planner = ArrivalOrderPlanner(CostModel(1.0, 1.0, 0.0), grid)
        >>> [(batch.rows, batch.shape.length) for batch in planner.plan([3, 100, 5])]
        [((0, 1), 100), ((2,), 5)]
    """

    def __init__(self, cost: CostModel, grid: ShapeGrid) -> None:
        super().__init__(cost, grid, max_tokens=grid.max_rows * grid.max_length)
        self._shapes = grid

    def plan(self, lengths: Sequence[int]) -> list[MicroBatch]:
        """See `Planner.plan`."""
        starts = range(0, len(lengths), self._shapes.max_rows)
        return [self._full_batch(lengths, start) for start in starts]

    def urgent(self, lengths: Sequence[int]) -> MicroBatch:
        """See `Planner.urgent`."""
        return self._full_batch(lengths, 0)

    def _full_batch(self, lengths: Sequence[int], start: int) -> MicroBatch:
        rows = tuple(range(start, min(start + self._shapes.max_rows, len(lengths))))
        return MicroBatch(rows, self._shapes.fit(len(rows), max(lengths[row] for row in rows)))


def make_planner(loaded: LoadedModel, _: BatchingSettings) -> Planner:
    """What stands in for `electra_serve.server.bootstrap.build_planner`."""
    return ArrivalOrderPlanner(fit(loaded.timings), loaded.engines[0].signature.grid)


def serve(settings: Settings) -> int:
    """Serves until a signal comes."""
    log = configure_logs(settings.log.level, settings.log.format, BackgroundWriter(sys.stderr))

    async def run() -> int:
        return await build_process(settings, log, on_ready=lambda *_: None, make_planner=make_planner).run()

    return uvloop.run(run())


def main() -> int:
    """Runs the one command that there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("serve")
    source = add_flags(command)
    return serve(read_settings(parser.parse_args(), source, os.environ))


if __name__ == "__main__":
    sys.exit(main())
