"""Typed clients over REST and gRPC, synchronous and asynchronous.

Needs numpy, httpx, grpcio and protobuf, and nothing of the server.

    from electra_serve import ElectraClient

    with ElectraClient("http://127.0.0.1:8080") as client:
        encoded = client.encode(text=["the quick brown fox"], outputs=["mean_output"])
        encoded.mean_output    # (1, H) float32
"""

from electra_serve.client.grpc import AsyncGrpcElectraClient, GrpcElectraClient
from electra_serve.client.request import Priority
from electra_serve.client.response import (
    ClassifyResponse,
    EmbedResponse,
    EncodeResponse,
    Label,
    ModelInfo,
    RankedDocument,
    RequestLimits,
    RerankResponse,
    ShapeCost,
    Span,
)
from electra_serve.client.rest import AsyncElectraClient, ElectraClient
from electra_serve.client.retry import RetryPolicy
from electra_serve.client.tls import Tls
from electra_serve.errors import TransportError

__all__ = [
    "AsyncElectraClient",
    "AsyncGrpcElectraClient",
    "ClassifyResponse",
    "ElectraClient",
    "EmbedResponse",
    "EncodeResponse",
    "GrpcElectraClient",
    "Label",
    "ModelInfo",
    "Priority",
    "RankedDocument",
    "RequestLimits",
    "RerankResponse",
    "RetryPolicy",
    "ShapeCost",
    "Span",
    "Tls",
    "TransportError",
]
