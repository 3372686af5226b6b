"""A typed client of the service, over REST or gRPC, synchronous or asynchronous.

Needs numpy, httpx, grpcio and protobuf, and nothing of the server.

    from service.client import ElectraClient

    with ElectraClient("http://127.0.0.1:8080") as client:
        encoded = client.encode(text=["the quick brown fox"], outputs=["mean_output"])
        encoded.mean_output    # (1, H) float32
"""

from service.client.answer import Encoded, RequestLimits, ServedModel
from service.client.errors import TransportError
from service.client.grpc import AsyncGrpcElectraClient, GrpcElectraClient
from service.client.query import Priority
from service.client.rest import AsyncElectraClient, ElectraClient
from service.client.retry import RetryPolicy
from service.client.tls import Tls

__all__ = [
    "AsyncElectraClient",
    "AsyncGrpcElectraClient",
    "ElectraClient",
    "Encoded",
    "GrpcElectraClient",
    "Priority",
    "RequestLimits",
    "RetryPolicy",
    "ServedModel",
    "Tls",
    "TransportError",
]
