"""Seconds from a process' start to READY, with a warm compilation cache and without one, and device memory."""

from __future__ import annotations

import sys
import time
from typing import Final

from tools.gpu_kit.stages.device_memory import device_memory_mib
from tools.gpu_kit.stages.services import serve
from tools.gpu_kit.stages.stage import Bench, run_stage

STARTS: Final = {
    "gpu": (("base", True), ("base", False), ("small", True), ("large", True), ("small", False), ("large", False)),
    "cpu": (("tiny", True), ("tiny", False)),
}
"""Size, and whether with a cache, in order of value: the stage may be cut off."""


def measure_starts(bench: Bench) -> None:
    """Records each start; the cache is filled by an earlier stage, or first here."""
    for size, cached in STARTS[bench.device]:
        if cached and not (bench.work / "xla").is_dir():
            _start(bench, size, cached=True)
        before = device_memory_mib()
        seconds, used = _start(bench, size, cached=cached)
        bench.recorder.add("ready_s", [seconds], size=size, cache="warm" if cached else "none")
        if bench.on_gpu and before is not None and used is not None:
            bench.recorder.add("device_memory_mib", [used - before], size=size, cache="warm" if cached else "none")


def _start(bench: Bench, size: str, *, cached: bool) -> tuple[float, float | None]:
    began = time.monotonic()
    with serve(bench, [size], cached=cached):
        return time.monotonic() - began, device_memory_mib()


if __name__ == "__main__":
    sys.exit(run_stage("startup", measure_starts))
