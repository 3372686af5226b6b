"""The service with batches in order of arrival and one sequence per row: only the planner differs.

`python -m benchmarks.padding_service serve …` has the flags of `electra-serve serve`. It measures the planner's effect
and is no setting of the product.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import uvloop

from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.planner import BatchPlan, Planner
from electra_serve.observability.logs import configure_logs
from electra_serve.runtime.background_writer import BackgroundWriter
from electra_serve.server.bootstrap import build_process
from electra_serve.settings.loader import add_flags, read_settings
from electra_serve.settings.schema import BatchingSettings, Settings
from electra_serve.tensors import BatchShape, Placement


class ArrivalOrderPlanner(Planner):
    """Full batches in order of arrival, one sequence per row, as in most dynamic batching.

    Example:
        >>> shapes = (BatchShape(1, 16), BatchShape(1, 128), BatchShape(2, 64), BatchShape(4, 64))
        >>> planner = ArrivalOrderPlanner(CostTable(dict.fromkeys(shapes, 1.0)), max_positions=256)
        >>> [(batch.shape, batch.sequences) for batch in planner.plan([3, 60, 5, 100])]
        [(BatchShape(rows=4, length=64), (0, 1, 2)), (BatchShape(rows=1, length=128), (3,))]
    """

    def plan(self, lengths: Sequence[int]) -> list[BatchPlan]:
        """See `Planner.plan`."""
        batches: list[BatchPlan] = []
        start = 0
        while start < len(lengths):
            batches.append(self._full_batch(lengths, start))
            start = batches[-1].sequences[-1] + 1
        return batches

    def plan_next(self, lengths: Sequence[int]) -> BatchPlan:
        """See `Planner.plan_next`."""
        return self._full_batch(lengths, 0)

    def _full_batch(self, lengths: Sequence[int], start: int) -> BatchPlan:
        """Plans the sequences from `start` on that fill the rows of a shape, in the smallest such shape."""
        last = min(start + max(shape.rows for shape in self.costs.shapes), len(lengths))
        ends = range(start + 1, last + 1)
        *_, (end, shape) = ((end, shape) for end in ends if (shape := self._smallest(lengths[start:end])))
        placements = tuple(Placement(row, 0, 0, length) for row, length in enumerate(lengths[start:end]))
        return BatchPlan(shape, tuple(range(start, end)), placements)

    def _smallest(self, lengths: Sequence[int]) -> BatchShape | None:
        """Returns the smallest shape with a row for each sequence."""
        fitting = (s for s in self.costs.shapes if s.rows >= len(lengths) and s.length >= max(lengths))
        return next((s for s in fitting if s.rows == 1 or s.positions <= self.max_positions), None)


def make_planner(costs: CostTable, batching: BatchingSettings) -> Planner:
    """Replaces `electra_serve.server.models.build_planner`."""
    return ArrivalOrderPlanner(costs, max_positions=batching.max_batch_tokens)


def serve(settings: Settings) -> int:
    """Serves until a signal comes."""
    log = configure_logs(settings.log.level, settings.log.format, BackgroundWriter(sys.stderr))

    async def run() -> int:
        return await build_process(settings, log, on_ready=lambda *_: None, make_planner=make_planner).run()

    return uvloop.run(run())


def main() -> int:
    """Runs the command `serve`."""
    parser = argparse.ArgumentParser(description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("serve")
    source = add_flags(command)
    return serve(read_settings(parser.parse_args(), source, os.environ))


if __name__ == "__main__":
    sys.exit(main())
