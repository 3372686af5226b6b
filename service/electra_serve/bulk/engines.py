"""Computes windows of sequences on all engines of a model, as the batcher does, without its queue.

A window's sequences are sorted by length and dealt into groups of like mixtures. Planning takes more time for each
sequence of a large group. Each engine runs one batch at a time; the next ones are packed already.
If a batch fails, it is halved until the sequence at fault is alone. Without finite outputs, sequences run again alone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final

import numpy as np

from electra_serve.batching.engine_worker import finite_sequences
from electra_serve.batching.planner import BatchPlan, Planner
from electra_serve.engine.base import Engine
from electra_serve.engine.golden import golden_sequence
from electra_serve.errors import BulkError
from electra_serve.tensors import (
    POSITION_OUTPUTS,
    Batch,
    Encoding,
    Float32Array,
    ModelOutput,
    Output,
    Outputs,
)

PLANNED_SEQUENCES: Final = 1024  # of a group; twice as many need 0.1 % fewer positions


@dataclass(slots=True, eq=False)
class Computed:
    """Outputs of the sequences of a window; they are complete after `wait`."""

    encodings: Sequence[Encoding]
    vectors: dict[Output, Float32Array]  # (N, W)
    positions: dict[Output, list[Float32Array | None]]  # (T, W) each; None if it failed
    failed: dict[int, str] = field(default_factory=dict)  # index of a sequence → reason
    _futures: list[Future[None]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Unmasked positions."""
        return sum(encoding.real_tokens for encoding in self.encodings)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for all batches; returns False after the timeout, and raises what a batch raised."""
        done, pending = wait(self._futures, timeout_s, FIRST_EXCEPTION)
        for future in done:
            future.result()
        return not pending

    def add(self, future: Future[None]) -> None:
        """Adds a batch."""
        self._futures.append(future)


class EnginePool:
    """The engines of a model, each used by one thread at a time.

    Args:
        engines: Warm engines that compute alike.
        planner: Plans their batches.
        widths: Length of the last axis of each output to compute.
        vocab_size: Of the model.
    """

    def __init__(self, engines: Sequence[Engine], planner: Planner, widths: dict[Output, int], vocab_size: int) -> None:
        self.planner = planner
        self._widths = widths
        self._outputs: Outputs = frozenset(widths)
        self._probe = golden_sequence(vocab_size, engines[0].signature.max_length)
        self._closing = threading.Event()
        self._unused: SimpleQueue[Engine] = SimpleQueue()
        for engine in engines:
            self._unused.put(engine)
        self._pool = ThreadPoolExecutor(len(engines), thread_name_prefix="bulk-engine")

    def submit(self, encodings: Sequence[Encoding]) -> Computed:
        """Plans and packs the batches of a window, and queues them; called by one thread."""
        count = len(encodings)
        computed = Computed(
            encodings,
            {o: np.zeros((count, width), np.float32) for o, width in self._widths.items() if o not in POSITION_OUTPUTS},
            {output: [None] * count for output in self._widths if output in POSITION_OUTPUTS},
        )
        for group in groups([encoding.compute_length for encoding in encodings], PLANNED_SEQUENCES):
            for plan in self._plan(encodings, group):
                sequences = [group[index] for index in plan.sequences]
                batch = Batch.pack([encodings[index] for index in sequences], plan.placements, plan.shape)
                computed.add(self._pool.submit(self._run, batch, sequences, computed))
        return computed

    def close(self) -> None:
        """Waits for the running batches; queued ones are dropped."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)

    def _plan(self, encodings: Sequence[Encoding], group: Sequence[int]) -> list[BatchPlan]:
        return self.planner.plan([encodings[index].compute_length for index in group])

    def _run(self, batch: Batch, sequences: Sequence[int], computed: Computed) -> None:
        """Runs on a thread of the pool."""
        engine = self._unused.get()
        try:
            self._attempt(engine, batch, sequences, computed)
        finally:
            self._unused.put(engine)

    def _attempt(self, engine: Engine, batch: Batch, sequences: Sequence[int], computed: Computed) -> None:
        if self._closing.is_set():
            return
        try:
            output = engine.run(batch, self._outputs)
        except Exception as error:  # noqa: BLE001  # an engine may raise anything
            self._retry(engine, sequences, computed, error)
            return
        finite = finite_sequences(output, batch.placements)
        self._store(output, batch, sequences, computed)
        for index, is_finite in zip(sequences, finite, strict=True):
            if is_finite:
                continue
            if len(sequences) == 1:
                computed.failed[index] = "the model's output must be finite; got other numbers"
            else:
                self._rerun(engine, [index], computed)

    def _retry(self, engine: Engine, sequences: Sequence[int], computed: Computed, error: Exception) -> None:
        if len(sequences) == 1:
            self._check_engine(engine, error)
            computed.failed[sequences[0]] = "the engine failed on this row"
            return
        middle = len(sequences) // 2
        self._rerun(engine, sequences[:middle], computed)
        self._rerun(engine, sequences[middle:], computed)

    def _rerun(self, engine: Engine, sequences: Sequence[int], computed: Computed) -> None:
        for plan in self._plan(computed.encodings, sequences):
            chosen = [sequences[index] for index in plan.sequences]
            batch = Batch.pack([computed.encodings[index] for index in chosen], plan.placements, plan.shape)
            self._attempt(engine, batch, chosen, computed)

    def _check_engine(self, engine: Engine, error: Exception) -> None:
        """Raises `BulkError` if the engine fails on other ids too: no row is at fault then."""
        batch = Batch.one_per_row([self._probe], engine.signature.single_row(len(self._probe)))
        try:
            engine.run(batch, self._outputs)
        except Exception as failure:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise BulkError(f"the engine failed: {text:.300}") from failure

    def _store(self, output: ModelOutput, batch: Batch, sequences: Sequence[int], computed: Computed) -> None:
        """Copies the outputs of a batch, which hold many times more memory than its sequences need."""
        rows, slots = ([getattr(place, name) for place in batch.placements] for name in ("row", "slot"))
        for name, vectors in computed.vectors.items():
            vectors[sequences] = getattr(output, name.value)[rows, slots]
        for name, kept in computed.positions.items():
            for index, place in zip(sequences, batch.placements, strict=True):
                encoding = computed.encodings[index]
                extracted = output.extract(place, encoding, frozenset({name})).get(name)
                kept[index] = np.array(extracted)


def groups(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Deals sequences, sorted by length, into groups of at most `most`.

    Example:
        >>> groups([5, 9, 1, 7], 2)
        [[1, 0], [3, 2]]
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    count = -(-len(order) // most)
    return [order[start::count] for start in range(count)]
