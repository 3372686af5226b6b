"""Service interface for transports; `electra_serve.serving.service.InferenceService` and test fakes implement it."""

from __future__ import annotations

from typing import Protocol

from electra_serve.serving.classify import ClassifyRequest, ClassifyResult
from electra_serve.serving.embed import EmbedRequest, EmbedResult
from electra_serve.serving.encode import EncodeRequest, EncodeResult
from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.rerank import RerankRequest, RerankResult
from electra_serve.serving.tokens import DetokenizeRequest, DetokenizeResult, TokenizeRequest, TokenizeResult


class EncodeService(Protocol):
    """Encodes and classifies requests, and describes models."""

    @property
    def ready(self) -> bool:
        """True if every model is ready and new requests are admitted."""
        ...

    def ensure_capacity(self, client: str, sequences: int = 1, tokens: int = 1) -> None:
        """Rejects a request of this client before it is read, if no model could admit it."""
        ...

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        """Computes a request; raises a `ServiceError`. Cancellation removes its rows from the queue."""
        ...

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Computes one vector of each input, as `encode`."""
        ...

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """Classifies the sequences of a request with the head of a model, as `encode`."""
        ...

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Scores documents for a query with a cross-encoder, as `encode`."""
        ...

    async def predict(self, request: ClassifyRequest) -> ClassifyResult:
        """Computes labels of many inputs in slices, as `classify`."""
        ...

    async def tokenize(self, request: TokenizeRequest) -> TokenizeResult:
        """Finds the tokens of texts."""
        ...

    async def detokenize(self, request: DetokenizeRequest) -> DetokenizeResult:
        """Turns ids into texts."""
        ...

    def truncates(self, model: str | None) -> bool:
        """Returns True if a model truncates long texts of other servers' APIs; raises a `ServiceError`."""
        ...

    def models(self) -> tuple[ModelInfo, ...]:
        """Every configured model."""
        ...

    def model(self, name: str) -> ModelInfo:
        """One configured model; raises `electra_serve.errors.ModelNotFound`."""
        ...

    def label(self, model: str | None) -> str:
        """Returns the `model` label of a request's metrics: a configured name, or "" for an unknown one."""
        ...
