"""Fakes that the whole suite shares: a clock the test owns, and an engine it scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from service.engine.base import EngineSignature, ShapeGrid
from service.tensors import Batch, BatchShape, ModelOutput, Output, Outputs

FAKE_HIDDEN_DIM = 4


class FakeEngine:
    """An engine whose answers can be told from the ids alone.

    Position t of a row answers with its token id in every one of H components, zero where masked. The
    pooled and [CLS] outputs are the first position's, the mean is the mean.

    Attributes:
        batches: Every batch run, in order.
        requested: The outputs asked for with each.
        gate: `run` waits for it; clear it to hold the engine.
        fail: Called with each batch before it runs; may raise.
        poison: Token ids whose rows come back non-finite.
    """

    def __init__(self, *, max_rows: int = 32, max_length: int = 512, grid: ShapeGrid | None = None) -> None:
        self._signature = EngineSignature(
            "fake", "cpu", "float32", FAKE_HIDDEN_DIM, grid or ShapeGrid(max_rows=max_rows, max_length=max_length)
        )
        self.batches: list[Batch] = []
        self.requested: list[Outputs] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Callable[[Batch], None] = lambda _: None
        self.poison: set[int] = set()
        self.closed = False
        self.warmed: list[BatchShape] = []
        self.compilations = 0

    @property
    def signature(self) -> EngineSignature:
        return self._signature

    def warm_up(self, shapes: Sequence[BatchShape]) -> None:
        self.warmed.extend(shapes)

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        self.gate.wait()
        self.batches.append(batch)
        self.requested.append(outputs)
        self.fail(batch)
        ids = batch.token_ids.astype(np.float32)
        ids[np.isin(batch.token_ids, list(self.poison))] = np.nan
        hidden = np.repeat(ids[:, :, None], FAKE_HIDDEN_DIM, axis=2)  # (B, S, H)
        mask = batch.padding_mask[:, :, None].astype(np.float32)
        mean = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
        return ModelOutput(
            sequence_output=hidden * mask if Output.SEQUENCE in outputs else None,
            pooled_output=hidden[:, 0] if Output.POOLED in outputs else None,
            cls_output=hidden[:, 0] if Output.CLS in outputs else None,
            mean_output=mean if Output.MEAN in outputs else None,
        )

    def close(self) -> None:
        self.closed = True
