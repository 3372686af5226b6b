"""Transport-independent service: the entry of every request.

A transport converts its message into a request, awaits the method of `InferenceService` of the same name, and converts
the result or the `ServiceError` back. Each operation has a module of its own.
"""

from __future__ import annotations

from electra_serve.errors import ModelNotReady, Overloaded, ServiceError, ShuttingDown
from electra_serve.serving.classify import ClassifyRequest, ClassifyResult, classify, predict
from electra_serve.serving.computation import Computation
from electra_serve.serving.embed import EmbedRequest, EmbedResult, embed, truncation_setting
from electra_serve.serving.encode import EncodeRequest, EncodeResult, encode
from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.rerank import RerankRequest, RerankResult, rerank
from electra_serve.serving.tokenization import TextEncoder
from electra_serve.serving.tokens import (
    DetokenizeRequest,
    DetokenizeResult,
    TokenizeRequest,
    TokenizeResult,
    detokenize,
    tokenize,
)
from electra_serve.tensors import Truncation


class InferenceService:
    """Serves requests with the models of a registry; a model that is replaced serves them to their end."""

    def __init__(self, registry: ModelRegistry, texts: TextEncoder) -> None:
        self._registry = registry
        self._computation = Computation(texts)

    @property
    def ready(self) -> bool:
        """True if every configured model is ready and the process is not draining."""
        return self._registry.ready

    def label(self, model: str | None) -> str:
        """Returns the `model` label for metrics: a configured name, or "" for an unknown one."""
        return self._registry.label(model)

    def models(self) -> tuple[ModelInfo, ...]:
        """Describes every model, in the order of the settings."""
        return self._registry.infos()

    def model(self, name: str) -> ModelInfo:
        """Describes one model; raises `ModelNotFound`."""
        return self._registry.info(name)

    def ensure_capacity(self, client: str, sequences: int = 1, tokens: int = 1) -> None:
        """Rejects a request before it is read, if no model has capacity for it.

        Raises:
            Overloaded: Every queue is full.
            ModelNotReady: Every engine has failed.
            ShuttingDown: Nothing new is admitted.
        """
        rejection: ServiceError | None = None
        for batcher in self._registry.batchers:
            try:
                batcher.ensure_capacity(client, sequences, tokens)
            except (Overloaded, ShuttingDown, ModelNotReady) as error:
                rejection = error
            else:
                return
        if rejection is not None:
            raise rejection

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        """Computes the requested outputs; cancellation removes waiting sequences from the queue.

        Raises:
            ModelNotFound: The name is unknown, or missing although several models are served.
            ModelNotReady: The model is loading, unloading or failed.
            InvalidInput: The ids, texts or outputs are invalid for the model.
            PayloadTooLarge: There are too many sequences, or the response would be too large.
            Overloaded: The queue or the client's share of it is full, or the wait would exceed the deadline.
            ShuttingDown: Nothing new is admitted.
            DeadlineExceeded: The deadline passed first.
            EngineFailure: The engine failed on one of the sequences.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await encode(self._computation, model, request)

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Computes one vector of each input, in slices; raises as `encode`.

        Raises:
            InvalidInput: The model has no such prompt or length of vectors, or takes no ids.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await embed(self._computation, model, request)

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """Computes labels, labeled spans or answer spans, as the head of the model says; raises as `encode`.

        Raises:
            InvalidInput: The model has no head, or an option or input does not fit it.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await classify(self._computation, self._registry.infos, model, request)

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Scores documents for a query with a cross-encoder, in slices; raises as `encode`.

        Raises:
            InvalidInput: The model is no cross-encoder, or the query leaves no room for a document.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await rerank(self._computation, self._registry.infos, model, request)

    async def predict(self, request: ClassifyRequest) -> ClassifyResult:
        """Computes labels of many inputs, in slices; raises as `classify`.

        Raises:
            InvalidInput: The model has no head that labels sequences.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await predict(self._computation, self._registry.infos, model, request)

    async def tokenize(self, request: TokenizeRequest) -> TokenizeResult:
        """Finds the tokens of texts, and their places.

        Raises:
            ModelNotFound: The name is unknown, or missing although several models are served.
            ModelNotReady: The model is loading, unloading or failed.
            InvalidInput: A text is too long, or the model has no tokenizer or no such prompt.
            PayloadTooLarge: The response would be too large.
            Overloaded: The tokenizer's queue is full, or the wait would exceed the deadline.
            DeadlineExceeded: The deadline passed first.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await tokenize(self._computation, model, request)

    async def detokenize(self, request: DetokenizeRequest) -> DetokenizeResult:
        """Turns ids into texts; raises as `tokenize`."""
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await detokenize(self._computation, model, request)

    def truncates(self, model: str | None) -> bool:
        """Returns True if a model truncates long texts of other servers' APIs; raises as `encode`."""
        return truncation_setting(self._registry.ready_model(model).settings.embedding) is not Truncation.NONE
