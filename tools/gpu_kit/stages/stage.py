"""The start and the end of every stage: flags, records, and an exit code that says whether its checks passed."""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.gpu_kit.records import Recorder


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that a stage works with.

    Attributes:
        device: `gpu` or `cpu`.
        work: Folder for whatever the stage makes; later stages find it.
        recorder: Receives checks and measurements.
    """

    device: str
    work: Path
    recorder: Recorder

    @property
    def on_gpu(self) -> bool:
        """True if a GPU computes, and figures mean something."""
        return self.device == "gpu"


def run_stage(name: str, *steps: Callable[[Bench], None]) -> int:
    """Runs each of `steps`, whether or not the one before failed; returns 1 unless all checks passed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("gpu", "cpu"), required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    recorder = Recorder(name, quick=flags.device == "cpu", path=flags.records)
    for step in steps:
        try:
            step(Bench(flags.device, flags.work, recorder))
        except Exception as error:  # noqa: BLE001  # the other steps may still work
            traceback.print_exc()
            recorder.check(f"{step.__name__} runs to its end", passed=False, detail=repr(error))
    return 1 if recorder.failed else 0
