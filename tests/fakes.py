"""Fakes of the whole suite: a clock that the test moves, an engine that it controls, a model on such engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.stand_in.service import bare_preset
from electra_serve.api.connections import ConnectionTable, surplus_of
from electra_serve.batching.clock import LoopClock
from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.flight_recorder import InFlightBatch
from electra_serve.batching.planner import Planner
from electra_serve.batching.worker_pool import Lane
from electra_serve.engine.base import EngineSignature
from electra_serve.engine.factory import LoadedModel
from electra_serve.engine.profiling import Timings
from electra_serve.observability.metrics import Metrics
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.tokenizers.loader import NO_FILES, NoTokenizer, Tokenizer
from electra_serve.serving.tokenization import TextEncoder
from electra_serve.serving.tokenizer_queue import TokenizerQueue
from electra_serve.serving.transit_budget import TransitBudget
from electra_serve.tensors import (
    ENCODER_OUTPUTS,
    Batch,
    BatchShape,
    Encoding,
    Float32Array,
    ModelOutput,
    Output,
    Outputs,
    Placement,
)

FAKE_HIDDEN_DIM = 4
FAKE_SHAPES = ((1, 16), (1, 64), (1, 512), (2, 64), (4, 64), (8, 64))
"""Rows and lengths of a fake engine's batches."""
SHORT_SHAPES = ((1, 8), (1, 16), (4, 16))
"""Those of a model that takes at most 16 positions."""


class FakeEngine:
    """An engine whose outputs follow from the ids alone.

    Each position has its token id in all H components, or zero if masked. Pooled and [CLS] outputs are those of a
    sequence's first position, the mean output is the mean. Logit i of a head is i + 1 times the id.

    Attributes:
        batches: Every batch run, in order.
        requested: The requested outputs of each.
        gate: `run` waits for it; clear it to hold the engine.
        fail: Called with each batch before it runs; may raise.
        poison: Token ids that make the whole row non-finite.
        close_gate: `close` waits for it; clear it to hold the closing.
        closings: How often it was closed.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]] = FAKE_SHAPES, head: HeadConfig | None = None) -> None:
        batch_shapes = tuple(BatchShape(rows, length) for rows, length in shapes)
        outputs = ENCODER_OUTPUTS if head is None else ENCODER_OUTPUTS | {head.output}
        self._signature = EngineSignature("fake", "cpu", "float32", FAKE_HIDDEN_DIM, batch_shapes, outputs)
        self.head = head
        self.batches: list[Batch] = []
        self.requested: list[Outputs] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Callable[[Batch], None] = lambda _: None
        self.poison: set[int] = set()
        self.close_gate = threading.Event()
        self.close_gate.set()
        self.closings = 0
        self.closed = False
        self.warm_ups = 0
        self.compilations = 0

    @property
    def signature(self) -> EngineSignature:
        return self._signature

    def warm_up(self) -> None:
        self.warm_ups += 1

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        self.gate.wait()
        self.batches.append(batch)
        self.requested.append(outputs)
        self.fail(batch)
        ids = batch.token_ids.astype(np.float32)  # (R, P)
        ids[np.isin(batch.token_ids, list(self.poison)).any(axis=1)] = np.nan
        hidden = np.repeat(ids[:, :, None], FAKE_HIDDEN_DIM, axis=2)  # (R, P, H)
        mask = batch.padding_mask[:, :, None].astype(np.float32)
        first = np.take_along_axis(hidden, batch.starts[:, :, None], axis=1)  # (R, S, H)
        return ModelOutput(
            sequence_output=hidden * mask if Output.SEQUENCE in outputs else None,
            pooled_output=first if Output.POOLED in outputs else None,
            cls_output=first if Output.CLS in outputs else None,
            mean_output=slot_means(batch, hidden) if Output.MEAN in outputs else None,
            logits=self._logits(first) if Output.LOGITS in outputs else None,
            token_logits=self._logits(hidden) * mask if Output.TOKEN_LOGITS in outputs else None,
        )

    def _logits(self, hidden: Float32Array) -> Float32Array:
        assert self.head is not None
        factors = np.arange(1, len(self.head.labels) + 1, dtype=np.float32)
        return np.asarray(hidden[:, :, :1] * factors, np.float32)  # (R, N, L)

    def close(self) -> None:
        self.closings += 1
        self.close_gate.wait()
        self.closed = True


def in_flight_batch(engine: FakeEngine | None = None) -> InFlightBatch:
    """A batch of two sequences that runs."""
    timed = fake_timings(engine or FakeEngine())
    lane = Lane((), Planner(CostTable(timed), max_positions=512))
    placements = [Placement(row, 0, 0, 8) for row in range(2)]
    return InFlightBatch(lane, 0, 512, BatchShape(2, 64), placements, 1.0, 2.0, 11, frozenset({Output.MEAN}), 0.01)


def slot_means(batch: Batch, hidden: Float32Array) -> Float32Array:
    """The mean of each sequence's unmasked positions, (R, P, H) to (R, S, H); zeros for empty slots."""
    means = np.zeros((*batch.starts.shape, hidden.shape[2]), np.float32)
    for place in batch.placements:
        span = slice(place.start, place.start + place.length)
        kept = batch.padding_mask[place.row, span] == 1
        means[place.row, place.slot] = hidden[place.row, span][kept].mean(axis=0)
    return means


class FakeTimer:
    """Something due on a `FakeClock`."""

    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def transit_budget(max_bytes: int = 2**28) -> TransitBudget:
    """A budget that only tests about it use up."""
    return TransitBudget(max_bytes, LoopClock().now)


def connection_table(limit: int = 4096) -> ConnectionTable:
    """A table that only tests about it fill."""
    return ConnectionTable(limit, surplus=surplus_of(limit))


def text_encoder(max_characters: int = 2_000_000) -> TextEncoder:
    """One with a queue and threads of its own."""
    return TextEncoder(TokenizerQueue(max_characters, LoopClock(), Metrics("test").tokenization_wait))


class FakeClock:
    """A clock that stands still until the test advances it."""

    def __init__(self) -> None:
        self._now = 100.0
        self._timers: list[FakeTimer] = []

    def now(self) -> float:
        return self._now

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(self._now + delay_s, callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Moves time on and calls back what has come due, in order."""
        self._now += seconds
        due = sorted((timer for timer in self._timers if timer.due <= self._now), key=lambda timer: timer.due)
        self._timers = [timer for timer in self._timers if timer.due > self._now]
        for timer in due:
            if not timer.cancelled:
                timer.callback()


def encoding(*ids: int, masked_tail: int = 0) -> Encoding:
    """A sequence of these ids, followed by so many masked positions."""
    token_ids = np.array([*ids, *[0] * masked_tail], np.int32)
    mask = np.array([1] * len(ids) + [0] * masked_tail, np.int32)
    return Encoding(token_ids, np.zeros_like(token_ids), mask, compute_length=len(ids), real_tokens=len(ids))


FAKE_CONFIG = BackboneConfig(
    vocab_size=100, num_layers=1, num_heads=1, hidden_dim=FAKE_HIDDEN_DIM, embedding_dim=4, intermediate_dim=4,
    max_sequence_length=16,
)  # fmt: skip


def loaded_model(*engines: FakeEngine, tokenizer: Tokenizer | NoTokenizer = NO_FILES) -> LoadedModel:
    """A model that is loaded, on these engines or one of its own."""
    preset = bare_preset("fake", FAKE_CONFIG, has_tokenizer=not isinstance(tokenizer, NoTokenizer))
    used = engines or (FakeEngine(SHORT_SHAPES),)
    return LoadedModel(replace(preset, sha256="0" * 64), tokenizer, used, fake_timings(used[0]))


def fake_timings(engine: FakeEngine, batch_s: float = 1e-3, position_s: float = 1e-5) -> Timings:
    """A fixed time for each batch and one for each position."""
    return {shape: batch_s + position_s * shape.positions for shape in engine.signature.shapes}
