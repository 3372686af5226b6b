"""Model of the routes: that of the settings, or the only one that is served. Requests name none."""

from __future__ import annotations

from typing import Literal

from electra_serve.api.service_protocol import EncodeService
from electra_serve.errors import ModelNotFound
from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.rerank import is_cross_encoder

Kind = Literal["embedding", "classifier", "reranker"]


def model_name(service: EncodeService, setting: str) -> str:
    """Returns the name of the model; raises `ModelNotFound` if there are several and the setting names none."""
    name = setting or service.label(None)
    if not name:
        names = ", ".join(info.name for info in service.models())
        raise ModelNotFound(f"several models are served: set apis.tei_model to one of {names}", field="model")
    return name


def kind_of(info: ModelInfo) -> Kind:
    """Returns the kind that clients see: a cross-encoder has one label.

    Other heads than those of sequences have no route, so their models count as encoders.
    """
    if is_cross_encoder(info.head, info.labels):
        return "reranker"
    return "classifier" if info.head == "sequence_classification" else "embedding"
