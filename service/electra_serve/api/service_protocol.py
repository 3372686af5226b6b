"""What a transport needs of the service: `electra_serve.serving.service.InferenceService` fits, and so does a fake."""

from __future__ import annotations

from typing import Protocol

from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.service import EncodeRequest, EncodeResult


class EncodeService(Protocol):
    """The door that requests go through."""

    @property
    def ready(self) -> bool:
        """Whether every model is ready and new requests are admitted."""
        ...

    def check_room(self, client: str) -> None:
        """Raises what any request of this client would be refused for now, before it is read."""
        ...

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        """Validates, computes and responds; raises a `ServiceError`. Cancelling it withdraws the rows."""
        ...

    def models(self) -> tuple[ModelInfo, ...]:
        """Every configured model."""
        ...

    def model(self, name: str) -> ModelInfo:
        """One configured model; raises `electra_serve.errors.ModelNotFound`."""
        ...

    def label(self, model: str | None) -> str:
        """The `model` label of a request's metrics: a configured name, or "" where the request means none."""
        ...
