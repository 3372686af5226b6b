"""Engine that sleeps as long as its script says, returns outputs known from the ids, and fails if an id orders it.

It leaves the machine's cores to the service and to the load, so its capacity does not depend on other processes.
"""

from __future__ import annotations

import ctypes
import threading
import time
from io import TextIOWrapper
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.stand_in import script as ids
from benchmarks.stand_in.answers import known_first, known_hidden, known_mean
from benchmarks.stand_in.record import Reached, heads
from benchmarks.stand_in.script import Script
from electra_serve.engine.base import EngineSignature
from electra_serve.tensors import Batch, BatchShape, Float32Array, ModelOutput, Output, Outputs

THREAD_ENDS_S: Final = 0.05
"""Delay after a batch before its thread ends: long enough to return the batch."""


class StandInEngine:
    """Follows a script.

    Args:
        script: Behavior.
        hidden_dim: H of every output.
        shapes: Batch shapes.
    """

    def __init__(self, script: Script, hidden_dim: int, shapes: tuple[BatchShape, ...]) -> None:
        self.signature = EngineSignature("stand-in", "cpu", "float32", hidden_dim, shapes)
        self.compilations = 0
        self._script = script
        self._fixed = None if script.known else _fixed_numbers(max(shape.positions for shape in shapes), hidden_dim)
        self._record = Path(script.record).open("a") if script.record else None  # noqa: SIM115  # closed with the engine
        self._leaked: list[bytes | TextIOWrapper] = []
        self._closes = True

    def warm_up(self) -> None:
        """Does nothing."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """Follows the ids' orders and takes the script's time."""
        seconds = self._script.seconds(batch.shape)
        ends = time.perf_counter() + seconds * (ids.SLOWER if self._orders(ids.SLOW, batch) else 1)
        self._write_down(batch)
        self._leak()
        self._fail(batch)
        output = self._compute(batch, outputs) if self._fixed is None else _cut(self._fixed, batch, outputs)
        if (left_s := ends - time.perf_counter()) > 0:
            time.sleep(left_s)
        if self._orders(ids.END_THREAD, batch):
            _end_this_thread_soon()
        if self._orders(ids.WEDGE_CLOSE, batch):
            self._closes = False
        return output

    def close(self) -> None:
        """Closes the record, or hangs if a batch ordered that."""
        if not self._closes:
            threading.Event().wait()
        if self._record is not None:
            self._record.close()

    def _orders(self, fault: int, batch: Batch) -> bool:
        return self._script.faults and fault in batch.token_ids

    def _fail(self, batch: Batch) -> None:
        if self._orders(ids.WEDGE, batch):
            threading.Event().wait()
        if self._orders(ids.RAISE, batch):
            raise RuntimeError("the script says so")
        if self._orders(ids.OUT_OF_MEMORY, batch) and len(batch.placements) > self._script.memory_sequences:
            raise MemoryError(f"{len(batch.placements)} sequences do not fit")

    def _compute(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        width = self.signature.hidden_dim
        first, mean = known_first(batch, width), known_mean(batch, width)
        hidden = known_hidden(batch, width) if Output.SEQUENCE in outputs else None
        broken = (batch.token_ids == ids.NOT_FINITE).any(axis=1) & self._script.faults  # (R,)
        for array in (first, mean, hidden):
            if array is not None:
                array[broken] = np.nan
        return ModelOutput(
            sequence_output=hidden,
            pooled_output=first if Output.POOLED in outputs else None,
            cls_output=first if Output.CLS in outputs else None,
            mean_output=mean if Output.MEAN in outputs else None,
        )

    def _write_down(self, batch: Batch) -> None:
        if self._record is not None:
            self._record.write(Reached(time.monotonic(), heads(batch)).line())
            self._record.flush()

    def _leak(self) -> None:
        if self._script.leak_bytes:
            self._leaked.append(b"\x01" * self._script.leak_bytes)
        for _ in range(self._script.leak_descriptors):
            self._leaked.append(Path(__file__).open())  # noqa: SIM115  # that is the point


def _fixed_numbers(positions: int, hidden_dim: int) -> Float32Array:
    """Tanh of a normal distribution: as long in JSON as a model's outputs."""
    numbers = np.tanh(np.random.default_rng(0).standard_normal((positions, hidden_dim)))
    return numbers.astype(np.float32)  # (R·P, H)


def _cut(numbers: Float32Array, batch: Batch, outputs: Outputs) -> ModelOutput:
    """Views of the same numbers; only `sequence_output` is copied, to have its zeros."""
    vectors = numbers[: batch.starts.size].reshape(*batch.starts.shape, -1)  # (R, S, H)
    hidden = None
    if Output.SEQUENCE in outputs:
        mask = batch.padding_mask[:, :, None].astype(np.float32)
        hidden = numbers[: batch.token_ids.size].reshape(*batch.token_ids.shape, -1) * mask  # (R, P, H)
    return ModelOutput(
        sequence_output=hidden,
        pooled_output=vectors if Output.POOLED in outputs else None,
        cls_output=vectors if Output.CLS in outputs else None,
        mean_output=vectors if Output.MEAN in outputs else None,
    )


def _end_this_thread_soon() -> None:
    """Raises `SystemExit` on this thread once it has returned its batch; nothing catches it there."""
    ident = ctypes.c_ulong(threading.get_ident())
    end = threading.Timer(
        THREAD_ENDS_S, ctypes.pythonapi.PyThreadState_SetAsyncExc, (ident, ctypes.py_object(SystemExit))
    )
    end.daemon = True
    end.start()
