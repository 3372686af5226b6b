"""A service whose outputs follow from the ids alone, and which a test can hold, fail and watch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import numpy as np

from electra_serve.errors import ModelNotFound, ServiceError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.serving.classification.results import Label
from electra_serve.serving.classify import ClassifyRequest, ClassifyResult
from electra_serve.serving.embed import EmbedRequest, EmbedResult
from electra_serve.serving.encode import EncodeRequest, EncodeResult
from electra_serve.serving.model_info import ModelInfo, ModelLimits, ModelState, ShapeCost
from electra_serve.serving.rerank import RerankRequest, RerankResult, rank
from electra_serve.serving.tokens import (
    DetokenizeRequest,
    DetokenizeResult,
    TokenizeRequest,
    TokenizeResult,
    Tokens,
)
from electra_serve.tensors import Float32Array, Output, Outputs, RowOutput, TokenInput, Truncation

HIDDEN_DIM: Final = 4
LABELS: Final = ("bad", "good")
CONFIG: Final = BackboneConfig(
    vocab_size=100, num_layers=1, num_heads=2, hidden_dim=HIDDEN_DIM, embedding_dim=4, intermediate_dim=8, dropout=0.0
)
READY: Final = ModelInfo(
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
    embedding=EmbeddingConfig("cls", normalize=True, prompts={"query": "query: "}, default_prompt="query"),
    head="sequence_classification",
    labels=LABELS,
    activation="softmax",
    problem_type="single_label_classification",
)
LOADING: Final = ModelInfo(name="big", preset="presets/big", state=ModelState.LOADING)


AnyRequest = EncodeRequest | ClassifyRequest | EmbedRequest | RerankRequest | TokenizeRequest | DetokenizeRequest
TRUNCATED_LENGTH: Final = 100  # characters after which the fake truncates an embedded text


async def at_once(request: AnyRequest) -> None:
    """Neither waits nor fails."""


class FakeService:
    """Each position has its id in all H components; [CLS] and pooled output are the first position's.

    A text counts as its characters' code points.

    Args:
        models: Models; the first one is served by default.

    Attributes:
        requests: Every request to encode that was begun, in order.
        classified: Likewise, to classify; each label has the score of the first id.
        embedded: Likewise, to embed.
        reranked: Likewise, to rerank; the logit of a document is the number of its characters.
        tokenized: Likewise, to tokenize; each character is a token, after a special one.
        detokenized: Likewise, to turn ids into text; each id is a code point.
        cancelled: Number of cancelled requests.
        full: Rejects every call unread.
        gate: Requests wait for it; clear it to hold them.
        before: Awaited before each response; may wait or raise.
        ready: Readiness.
        hidden_dim: H of every output.
    """

    def __init__(self, *models: ModelInfo) -> None:
        self._models = models or (READY, LOADING)
        self.hidden_dim = config.hidden_dim if (config := self._models[0].config) else HIDDEN_DIM
        self.requests: list[EncodeRequest] = []
        self.classified: list[ClassifyRequest] = []
        self.embedded: list[EmbedRequest] = []
        self.reranked: list[RerankRequest] = []
        self.tokenized: list[TokenizeRequest] = []
        self.detokenized: list[DetokenizeRequest] = []
        self.cancelled = 0
        self.full: ServiceError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.before: Callable[[Any], Awaitable[object]] = at_once
        self.ready = True

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        self.requests.append(request)
        await self._wait(request)
        rows = rows_of(request)
        return EncodeResult(
            model=request.model or self._models[0].name,
            outputs=request.outputs,
            rows=tuple(row_output(row, request.outputs, self.hidden_dim) for row in rows),
            row_tokens=tuple(map(len, rows)),
            truncated=tuple(request.truncation is not Truncation.NONE for _ in rows),
        )

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        self.embedded.append(request)
        await self._wait(request)
        rows = rows_of(request)
        return EmbedResult(
            model=request.model or self._models[0].name,
            vectors=tuple(self._vectors(row, per_token=request.per_token) for row in rows),
            tokens=sum(map(len, rows)),
            truncated=tuple(len(row) > TRUNCATED_LENGTH for row in rows),
        )

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        self.classified.append(request)
        await self._wait(request)
        rows = rows_of(request)
        return ClassifyResult(
            model=request.model or self._models[0].name,
            head="sequence_classification",
            rows=tuple(
                tuple(Label(name, row[0] if row else 0) for name in LABELS[: request.options.top_k]) for row in rows
            ),
            sequences=len(rows),
            tokens=sum(map(len, rows)),
            truncated=tuple(request.truncation is not Truncation.NONE for _ in rows),
        )

    async def rerank(self, request: RerankRequest) -> RerankResult:
        self.reranked.append(request)
        await self._wait(request)
        scores, order = rank(np.array([len(document) for document in request.documents], np.float32), request)
        return RerankResult(
            model=request.model or self._models[0].name,
            scores=scores,
            order=order,
            tokens=sum(map(len, rows_of(request))),
            truncated=tuple(len(document) > TRUNCATED_LENGTH for document in request.documents),
        )

    def _vectors(self, row: Sequence[int], *, per_token: bool) -> Float32Array:
        values = np.array(row if per_token else [np.mean(row or [0])], np.float32)
        vectors: Float32Array = np.repeat(values[:, None], self.hidden_dim, axis=1)
        return vectors if per_token else vectors[0]

    async def predict(self, request: ClassifyRequest) -> ClassifyResult:
        return await self.classify(request)

    async def tokenize(self, request: TokenizeRequest) -> TokenizeResult:
        self.tokenized.append(request)
        await self._wait(request)
        rows = []
        for text, ids in zip(request.input.texts, rows_of(request), strict=True):
            first = 0 if request.add_special_tokens else 1
            places = np.arange(-1, len(ids), dtype=np.int32)[first:]
            starts, ends = np.maximum(places, 0), places + 1
            rows.append(Tokens(str(text), np.array([2, *ids][first:], np.int32), starts, ends, places < 0))
        return TokenizeResult(request.model or self._models[0].name, tuple(rows), {2: "[CLS]"})

    async def detokenize(self, request: DetokenizeRequest) -> DetokenizeResult:
        self.detokenized.append(request)
        await self._wait(request)
        rows = rows_of(request)
        texts = tuple("".join(chr(id_ % 0xD800) for id_ in row) for row in rows)
        return DetokenizeResult(request.model or self._models[0].name, texts, sum(map(len, rows)))

    def truncates(self, model: str | None) -> bool:
        return self.model(model or self._models[0].name).state is ModelState.READY

    async def _wait(self, request: AnyRequest) -> None:
        try:
            await self.gate.wait()
            await self.before(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def fail_with(self, error: Exception) -> None:
        """Makes every request fail."""

        async def fail(_: AnyRequest) -> None:
            raise error

        self.before = fail

    def ensure_capacity(self, client: str, sequences: int = 1, tokens: int = 1) -> None:
        if self.full is not None:
            raise self.full

    def models(self) -> tuple[ModelInfo, ...]:
        return self._models

    def model(self, name: str) -> ModelInfo:
        for info in self._models:
            if info.name == name:
                return info
        names = ", ".join(info.name for info in self._models)
        raise ModelNotFound(f"the models are {names}; received another name", field="model")

    def label(self, model: str | None) -> str:
        if model is None:
            return self._models[0].name
        return model if model in {info.name for info in self._models} else ""


def rows_of(request: AnyRequest) -> list[list[int]]:
    """Returns the ids of each sequence."""
    if isinstance(request.input, TokenInput):
        return [[int(i) for i in row] for row in request.input.token_ids]
    return [[ord(character) for character in "".join(text)] for text in request.input.texts]


def row_output(row: Sequence[int], outputs: Outputs, hidden_dim: int = HIDDEN_DIM) -> RowOutput:
    """Returns the fake's outputs for one sequence."""
    hidden = np.repeat(np.array(row, np.float32)[:, None], hidden_dim, axis=1)  # (T, H)
    first = hidden[0] if len(hidden) else np.zeros(hidden_dim, np.float32)
    return RowOutput(
        sequence_output=hidden if Output.SEQUENCE in outputs else None,
        pooled_output=first if Output.POOLED in outputs else None,
        cls_output=first if Output.CLS in outputs else None,
        mean_output=hidden.mean(axis=0) if Output.MEAN in outputs else None,
        embedding=hidden.mean(axis=0) if Output.EMBEDDING in outputs else None,
        logits=first[: len(LABELS)] if Output.LOGITS in outputs else None,
        token_logits=hidden[:, : len(LABELS)] if Output.TOKEN_LOGITS in outputs else None,
    )
