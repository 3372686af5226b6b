"""The real service with a stand-in engine: `python -m benchmarks.stand_in serve …`."""

from __future__ import annotations

import os
import signal
import sys
import time

from benchmarks.stand_in.script import Script
from benchmarks.stand_in.service import load_stand_in
from electra_serve.batching import batcher
from electra_serve.cli.main import main
from electra_serve.runtime import memory


def _scale_waits(factor: float) -> None:
    """Scales the service's waits that no setting changes."""
    batcher.ENGINE_CLOSE_S *= factor  # type: ignore[misc]
    memory.TRIM_EVERY_S *= factor  # type: ignore[misc]


def _stall_on_signal(seconds: float) -> None:
    """Makes SIGUSR2 block the main thread, which runs the event loop."""
    if seconds:
        signal.signal(signal.SIGUSR2, lambda *_: time.sleep(seconds))


if __name__ == "__main__":
    own = Script.read(os.environ)
    _stall_on_signal(own.loop_stall_s)
    _scale_waits(own.waits)
    sys.exit(main(load=load_stand_in))
