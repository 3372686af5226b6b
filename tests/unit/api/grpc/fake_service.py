"""A service whose answers can be told from the ids alone, and which a test can hold, fail and watch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from electra_serve.errors import ModelNotFound, ServiceError
from electra_serve.presets.config import BackboneConfig
from electra_serve.serving.model_info import ModelInfo, ModelLimits, ModelState, ShapeCost
from electra_serve.serving.service import EncodeRequest, EncodeResult
from electra_serve.tensors import Output, Outputs, RowOutput, TokenInput, Truncation

HIDDEN_DIM = 4
CONFIG = BackboneConfig(
    vocab_size=100, num_layers=1, num_heads=2, hidden_dim=HIDDEN_DIM, embedding_dim=4, intermediate_dim=8, dropout=0.0
)
READY = ModelInfo(
    name="tiny",
    preset="presets/tiny",
    state=ModelState.READY,
    source="local",
    revision="abc123",
    weights="random",
    config=CONFIG,
    parameters=CONFIG.parameters,
    limits=ModelLimits(max_sequences=8, max_sequence_length=512),
    engine="fake",
    device="cpu",
    dtype="float32",
    replicas=1,
    text=False,
    load_seconds=0.5,
    batch_shapes=(ShapeCost(1, 16, 1e-3), ShapeCost(4, 128, 1e-2)),
    pooler="random",
    batch_tokens=4096,
    aliases=("other",),
    text_reason="the preset has no tokenizer",
)
LOADING = ModelInfo(name="big", preset="presets/big", state=ModelState.LOADING)


async def at_once(request: EncodeRequest) -> None:
    """Neither waits nor fails."""


class FakeService:
    """Position t of a row answers with its id in each of H components; all other outputs with the row's first id.

    A text counts as its characters' code points.

    Attributes:
        requests: Every request begun, in order.
        cancelled: How many were cancelled.
        full: Refuses every call unread.
        before: Awaited before each answer; may wait or raise.
    """

    ready = True

    def __init__(self) -> None:
        self.requests: list[EncodeRequest] = []
        self.cancelled = 0
        self.full: ServiceError | None = None
        self.before: Callable[[EncodeRequest], Awaitable[object]] = at_once
        self._changed = asyncio.Condition()

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        self.requests.append(request)
        await self._notify()
        try:
            await self.before(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            await self._notify()
            raise
        rows = rows_of(request)
        return EncodeResult(
            model=request.model or READY.name,
            outputs=request.outputs,
            rows=tuple(answer(row, request.outputs) for row in rows),
            tokens=sum(map(len, rows)),
            truncated=tuple(request.truncation is not Truncation.NONE for _ in rows),
        )

    def ensure_capacity(self, client: str, sequences: int = 1, tokens: int = 1) -> None:
        if self.full is not None:
            raise self.full

    def models(self) -> tuple[ModelInfo, ...]:
        return (READY, LOADING)

    def model(self, name: str) -> ModelInfo:
        for info in self.models():
            if info.name == name:
                return info
        raise ModelNotFound("the models are tiny, big; received another name", field="model")

    def label(self, model: str | None) -> str:
        return model if model in {"tiny", "big"} else ""

    async def until(self, condition: Callable[[FakeService], bool]) -> None:
        """Waits until `condition` holds; fails where that takes 5 s."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def rows_of(request: EncodeRequest) -> list[list[int]]:
    """The ids of each sequence."""
    if isinstance(request.input, TokenInput):
        return [[int(i) for i in row] for row in request.input.token_ids]
    return [[ord(character) for character in "".join(text)] for text in request.input.texts]


def answer(row: list[int], outputs: Outputs) -> RowOutput:
    """What the fake answers to one sequence."""
    hidden = np.repeat(np.array(row, np.float32)[:, None], HIDDEN_DIM, axis=1)  # (T, H)
    return RowOutput(
        sequence_output=hidden if Output.SEQUENCE in outputs else None,
        pooled_output=hidden[0] if Output.POOLED in outputs else None,
        cls_output=hidden[0] if Output.CLS in outputs else None,
        mean_output=hidden[0] if Output.MEAN in outputs else None,
    )
