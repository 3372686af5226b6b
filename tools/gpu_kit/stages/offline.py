"""Speed of the JAX engine without a service, against torch with SDPA and then against `torch.compile`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.gpu import COMPILED, JAX, SDPA, compare_encoders, encoder_specs, measure_peak
from benchmarks.gpu import Bench as Shapes
from benchmarks.sizes import Effort
from benchmarks.worker import Unavailable
from tools.gpu_kit.stages.models import CPU_BATCH_TOKENS
from tools.gpu_kit.stages.services import cache_variables
from tools.gpu_kit.stages.stage import Bench, run_stage

SHAPES: Final = {
    "gpu": Shapes(
        "cuda",
        rows=(64,),
        lengths=(32, 128, 512),
        products=((8192, 8192, 8192), (16384, 4096, 16384)),
        sequences=2048,
        window=1024,
    ),
    "cpu": Shapes(
        "cpu",
        rows=(2,),
        lengths=(32,),
        products=((512, 512, 512),),
        sequences=8,
        window=8,
        max_batch_tokens=CPU_BATCH_TOKENS,
    ),
}
ROUNDS: Final = {"gpu": 5, "cpu": 1}
RIVALS: Final[Mapping[str, Sequence[tuple[str, tuple[str, ...]]]]] = {
    "gpu": (("base", (SDPA,)), ("small", (SDPA,)), ("base", (COMPILED,)), ("small", (COMPILED,))),
    "cpu": (("tiny", (SDPA, COMPILED)),),
}
"""In order of value: the stage may be cut off."""


def _effort(bench: Bench) -> Effort:
    rounds = ROUNDS[bench.device]
    return Effort(
        quick=not bench.on_gpu,
        sizes=(),
        rounds=rounds,
        mix_rounds=rounds,
        shape_s=0.05,
        sequences={},
        load_factor=1.0,
        starts=1,
        device=bench.device,
    )


def measure_matrix_rate(bench: Bench) -> None:
    """Records the card's own rate."""
    try:
        measure_peak(SHAPES[bench.device], _effort(bench), bench.recorder)
    except Unavailable as error:
        bench.recorder.skip("matrix rate", error)


def compare_with_torch(bench: Bench) -> None:
    """Records both encoders of each pair, in turns."""
    os.environ.update(cache_variables(bench))
    shapes = SHAPES[bench.device]
    for size, rivals in RIVALS[bench.device]:
        specs = [spec for spec in encoder_specs(shapes, bench.device) if spec.name in {*rivals, JAX}]
        against = " and ".join(rivals)
        compare_encoders(specs, shapes, size, _effort(bench), bench.recorder, against=against)
        bench.recorder.check(f"{size}: compared with {against}", passed=True)


if __name__ == "__main__":
    sys.exit(run_stage("offline", measure_matrix_rate, compare_with_torch))
