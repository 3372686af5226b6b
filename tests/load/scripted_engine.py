"""An engine that takes as long as it is told, answers what can be told from the ids, and fails when an id says so.

It sleeps instead of computing: the machine's cores are left to the service and to those who load it, so that its
capacity is the same whatever else runs.
"""

from __future__ import annotations

import ctypes
import threading
import time
from io import TextIOWrapper
from pathlib import Path
from typing import Final

import numpy as np

from electra_serve.engine.base import EngineSignature
from electra_serve.tensors import Batch, BatchShape, ModelOutput, Output, Outputs
from tests.load import script as ids
from tests.load.known_answer import known_first, known_hidden, known_mean
from tests.load.record import Reached, heads
from tests.load.script import Script

THREAD_ENDS_S: Final = 0.05
"""How long after its batch a thread ends: the batch is answered by then."""


class ScriptedEngine:
    """Follows a script.

    Args:
        script: What to do.
        hidden_dim: H of every output.
        shapes: The batch shapes that it takes.
    """

    def __init__(self, script: Script, hidden_dim: int, shapes: tuple[BatchShape, ...]) -> None:
        self.signature = EngineSignature("stand-in", "cpu", "float32", hidden_dim, shapes)
        self.compilations = 0
        self._script = script
        self._record = Path(script.record).open("a") if script.record else None  # noqa: SIM115  # for as long as it runs
        self._leaked: list[bytes | TextIOWrapper] = []
        self._closes = True

    def warm_up(self) -> None:
        """Does nothing."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """Does what the ids say, and takes the time that the script says."""
        seconds = self._script.seconds(batch.shape)
        ends = time.perf_counter() + seconds * (ids.SLOWER if self._says(ids.SLOW, batch) else 1)
        self._write_down(batch)
        self._leak()
        self._fail(batch)
        output = self._answer(batch, outputs)
        time.sleep(max(ends - time.perf_counter(), 0.0))
        if self._says(ids.END_THREAD, batch):
            _end_this_thread_soon()
        if self._says(ids.WEDGE_CLOSE, batch):
            self._closes = False
        return output

    def close(self) -> None:
        """Closes the record, or hangs if a batch ordered that."""
        if not self._closes:
            threading.Event().wait()
        if self._record is not None:
            self._record.close()

    def _says(self, fault: int, batch: Batch) -> bool:
        return self._script.faults and fault in batch.token_ids

    def _fail(self, batch: Batch) -> None:
        if self._says(ids.WEDGE, batch):
            threading.Event().wait()
        if self._says(ids.RAISE, batch):
            raise RuntimeError("the script says so")
        if self._says(ids.OUT_OF_MEMORY, batch) and len(batch.placements) > self._script.memory_sequences:
            raise MemoryError(f"{len(batch.placements)} sequences do not fit")

    def _answer(self, batch: Batch, outputs: Outputs) -> ModelOutput:
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
        if self._script.leak_descriptors:
            self._leaked.append(Path(__file__).open())  # noqa: SIM115  # that is the point


def _end_this_thread_soon() -> None:
    """Has Python raise `SystemExit` on this thread once it has handed over its batch: nothing is there to catch it."""
    ident = ctypes.c_ulong(threading.get_ident())
    end = threading.Timer(
        THREAD_ENDS_S, ctypes.pythonapi.PyThreadState_SetAsyncExc, (ident, ctypes.py_object(SystemExit))
    )
    end.daemon = True
    end.start()
