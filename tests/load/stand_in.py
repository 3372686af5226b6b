"""Starts the real service with a stand-in engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.stand_in.script import Script
from tests.integration.process import ServiceProcess, Standard, start

MODULE: Final = "benchmarks.stand_in"


@contextmanager
def stand_in(
    folder: Path,
    script: Script,
    *flags: str,
    at: tuple[int, int] | None = None,
    standard: Standard | None = None,
) -> Iterator[ServiceProcess]:
    """Starts it, with a log of JSON, and waits until it is ready; kills it at the end of the context.

    Args:
        folder: Folder of its output.
        script: Behavior of its engine.
        flags: Flags after `serve`.
        at: Ports of REST and gRPC; default: free ones.
        standard: Descriptors of its standard output and error; default: files in `folder`.
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
