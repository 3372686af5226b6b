"""The real service with a scripted engine: `python -m tests.load.stand_in serve …`, flags as for `electra-serve`.

Settings, both transports, queue, batcher, lifecycle and exit are the service's own; so are presets and tokenizers. What
stands in is the engine, and the timings of its shapes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from electra_serve.batching import batcher
from electra_serve.cli.main import main
from electra_serve.engine.factory import LoadedModel
from electra_serve.engine.shapes import ShapeLimits, cpu_shapes
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import load_tokenizer
from electra_serve.runtime import memory
from electra_serve.settings.schema import BatchingSettings, ModelSettings
from tests.integration.process import ServiceProcess, Standard, start
from tests.load.script import Script
from tests.load.scripted_engine import ScriptedEngine

MODULE: Final = "tests.load.stand_in"


def load_stand_in(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
    """What `electra_serve.engine.factory.load_model` does, with scripted engines."""
    script = Script.read(os.environ)
    preset = resolve_preset(settings.preset, load_weights=settings.load_weights)
    shapes = cpu_shapes(ShapeLimits(preset.config.max_sequence_length, batching.max_batch_tokens))
    engines = tuple(ScriptedEngine(script, preset.config.hidden_dim, shapes) for _ in range(settings.replicas or 1))
    return LoadedModel(preset, load_tokenizer(preset), engines, {shape: script.seconds(shape) for shape in shapes})


@contextmanager
def stand_in(
    folder: Path,
    script: Script,
    *flags: str,
    at: tuple[int, int] | None = None,
    standard: Standard | None = None,
) -> Iterator[ServiceProcess]:
    """Starts it and waits until it is ready; its log is JSON. It is killed at the end of the context if it still runs.

    Args:
        folder: For what it writes.
        script: What its engine does.
        flags: After `serve`.
        at: The ports for REST and gRPC; None takes free ones.
        standard: Descriptors for its standard output and error; None writes files in `folder`.
    """
    with start(
        folder,
        "--log.format=json",
        *flags,
        environment=script.environment,
        module=MODULE,
        at=at,
        standard=standard,
    ) as process:
        process.wait_ready()
        yield process


def scale_waits(factor: float) -> None:
    """Multiplies the service's waits that no setting changes."""
    batcher.ENGINE_CLOSE_S *= factor  # type: ignore[misc]
    memory.TRIM_EVERY_S *= factor  # type: ignore[misc]


def stall_on_signal(seconds: float) -> None:
    """Has SIGUSR2 block the main thread, which runs the event loop, for `seconds`."""
    if seconds:
        signal.signal(signal.SIGUSR2, lambda *_: time.sleep(seconds))


if __name__ == "__main__":
    own = Script.read(os.environ)
    stall_on_signal(own.loop_stall_s)
    scale_waits(own.waits)
    sys.exit(main(load=load_stand_in))
