"""A service whose answers can be told from the request, and which fails or waits when it is told to."""

from __future__ import annotations

import asyncio

import numpy as np

from electra_serve.errors import ModelNotFound, ServiceError
from electra_serve.presets.config import BackboneConfig
from electra_serve.serving.model_info import ModelInfo, ModelLimits, ModelState, ShapeCost
from electra_serve.serving.service import EncodeRequest, EncodeResult
from electra_serve.tensors import Float32Array, Output, RowOutput, TokenInput

CONFIG = BackboneConfig(
    vocab_size=100, num_layers=1, num_heads=1, hidden_dim=2, embedding_dim=2, intermediate_dim=4, max_sequence_length=16
)
READY_MODEL = ModelInfo(
    name="electra_demo",
    preset="electra_demo",
    state=ModelState.READY,
    source="embedded",
    revision="0123456789ab",
    weights="random",
    config=CONFIG,
    parameters=CONFIG.parameters,
    limits=ModelLimits(max_sequences=4, max_sequence_length=16),
    engine="fake",
    device="cpu",
    dtype="float32",
    replicas=1,
    text=True,
    load_seconds=0.5,
    batch_shapes=(ShapeCost(1, 16, 1e-3), ShapeCost(4, 128, 1e-2)),
    pooler="random",
    batch_tokens=4096,
    aliases=("other",),
)


class FakeEncodeService:
    """Answers position t of a row with its id, in every one of `hidden_dim` components; of a text, its length.

    Attributes:
        requests: Every request that came, in order.
        error: Raised instead of answering.
        gate: `encode` waits for it; clear it to hold requests.
        cancelled: How many held requests were cancelled.
        full: Refuses every request unread.
    """

    def __init__(self, *, hidden_dim: int = 2) -> None:
        self.hidden_dim = hidden_dim
        self.requests: list[EncodeRequest] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = 0
        self.full: ServiceError | None = None
        self.ready = True

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        self.requests.append(request)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        rows = self._rows(request)
        return EncodeResult(
            model=READY_MODEL.name,
            outputs=request.outputs,
            rows=tuple(self._answer(row, request) for row in rows),
            tokens=sum(len(row) for row in rows),
            truncated=(False,) * len(rows),
        )

    def ensure_capacity(self, client: str, sequences: int = 1, tokens: int = 1) -> None:
        if self.full is not None:
            raise self.full

    def models(self) -> tuple[ModelInfo, ...]:
        return (READY_MODEL, ModelInfo(name="next", preset="next", state=ModelState.LOADING))

    def model(self, name: str) -> ModelInfo:
        for model in self.models():
            if model.name == name:
                return model
        raise ModelNotFound("the models are electra_demo, next; received another name", field="model")

    def label(self, model: str | None) -> str:
        if model is None:
            return READY_MODEL.name
        return model if model in {info.name for info in self.models()} else ""

    def _rows(self, request: EncodeRequest) -> list[Float32Array]:
        if isinstance(request.input, TokenInput):
            return [row.astype(np.float32) for row in request.input.token_ids]
        return [np.full(1, len("".join(text)), np.float32) for text in request.input.texts]

    def _answer(self, row: Float32Array, request: EncodeRequest) -> RowOutput:
        hidden = np.repeat(row[:, None], self.hidden_dim, axis=1)  # (T, H)
        first = hidden[0] if len(hidden) else np.zeros(self.hidden_dim, np.float32)
        return RowOutput(
            sequence_output=hidden if Output.SEQUENCE in request.outputs else None,
            pooled_output=first if Output.POOLED in request.outputs else None,
            cls_output=first if Output.CLS in request.outputs else None,
            mean_output=hidden.mean(axis=0) if Output.MEAN in request.outputs else None,
        )
