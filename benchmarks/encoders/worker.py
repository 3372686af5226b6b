"""An encoder in a process of its own, which stands still unless it is asked.

The process is stopped (SIGSTOP) between tasks, so that a backend's spinning threads take nothing from the one that is
being timed.
"""

from __future__ import annotations

import gc
import os
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final, Self, TypeVar

from benchmarks.encoders.base import Encoder, EncoderSpec
from benchmarks.orders import Batches
from service.tensors import Batch, ModelOutput, Outputs

STOP_S: Final = 10.0
Answer = TypeVar("Answer")


class EncoderUnavailable(Exception):
    """This encoder cannot be built here; the text says why."""


@dataclass(frozen=True, slots=True)
class Encode:
    """Asks for the outputs of some batches."""

    batches: Batches
    outputs: Outputs

    def answer(self, encoder: Encoder) -> list[ModelOutput]:
        """The outputs."""
        return [encoder.run(batch, self.outputs) for batch in pack(encoder, self.batches)]


@dataclass(frozen=True, slots=True)
class Time:
    """Asks how long some batches take, one after the other.

    Attributes:
        batches: Packed before the clock runs.
        outputs: What to compute.
        least_s: They are run again and again for so long; the median is answered.
    """

    batches: Batches
    outputs: Outputs
    least_s: float = 0.0

    def answer(self, encoder: Encoder) -> float:
        """Seconds for all of them. The first batch is run once before: the caches are others'."""
        packed = pack(encoder, self.batches)
        encoder.run(packed[0], self.outputs)
        gc.collect()
        seconds = [self._once(encoder, packed)]
        while sum(seconds) < self.least_s:
            seconds.append(self._once(encoder, packed))
        return statistics.median(seconds)

    def _once(self, encoder: Encoder, packed: Sequence[Batch]) -> float:
        started = time.perf_counter()
        for batch in packed:
            encoder.run(batch, self.outputs)
        return time.perf_counter() - started


class EncoderProcess:
    """The process, seen from the one that measures.

    Args:
        spec: What it builds.
        size: For which architecture.

    Raises:
        EncoderUnavailable: It cannot be built here.
    """

    def __init__(self, spec: EncoderSpec, size: str) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(spec, size, theirs), daemon=True, name=spec.name)
        self._process.start()
        theirs.close()
        self._paused = False
        self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode(self, batches: Batches, outputs: Outputs) -> list[ModelOutput]:
        """The outputs of each batch."""
        found: list[ModelOutput] = self._ask(Encode(batches, outputs))
        return found

    def seconds(self, batches: Batches, outputs: Outputs, *, least_s: float = 0.0) -> float:
        """How long the batches take, see `Time`."""
        found: float = self._ask(Time(batches, outputs, least_s))
        return found

    def close(self) -> None:
        """Ends the process."""
        self._pause(paused=False)
        self._connection.close()
        self._process.join(STOP_S)
        self._process.kill()

    def _ask(self, task: Encode | Time) -> Any:
        self._pause(paused=False)
        self._connection.send(task)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise EncoderUnavailable(f"its process ended with exit code {self._process.exitcode}") from None
        if isinstance(answer, EncoderUnavailable):
            self.close()
            raise answer
        self._pause(paused=True)
        return answer

    def _pause(self, *, paused: bool) -> None:
        if self._process.pid is not None and self._process.is_alive() and paused != self._paused:
            os.kill(self._process.pid, signal.SIGSTOP if paused else signal.SIGCONT)
            self._paused = paused


def pack(encoder: Encoder, batches: Batches) -> list[Batch]:
    """Each batch, padded to its longest row or to the next shape that the encoder takes."""
    return [Batch.pack(rows, encoder.grid.fit(len(rows), max(map(len, rows)))) for rows in batches]


def _work(spec: EncoderSpec, size: str, connection: Connection) -> None:
    encoder = _attempt(lambda: spec.build(size))
    if isinstance(encoder, EncoderUnavailable):
        connection.send(encoder)
        return
    connection.send(None)
    while True:
        try:
            task: Encode | Time = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(lambda task=task: task.answer(encoder)))  # type: ignore[misc]


def _attempt(act: Callable[[], Answer]) -> Answer | EncoderUnavailable:
    try:
        return act()
    except Exception as error:  # noqa: BLE001  # libraries that are missing or unfit raise anything; the report says it
        return EncoderUnavailable(f"{type(error).__name__}: {error!s:.300}")
