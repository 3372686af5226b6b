"""A real server of the Open Inference Protocol over a fake service, and its messages, briefly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from tests.unit.api.grpc.conftest import SETTINGS, Running, serve

SERVICE: Final = "/inference.GRPCInferenceService"
InputTensor = pb.ModelInferRequest.InferInputTensor


@pytest.fixture
async def serving() -> AsyncIterator[Running]:
    async with serve(SETTINGS, oip=True) as running:
        yield running


def ids(*rows: Sequence[int], outputs: Sequence[str] = ("mean_output",), **fields: Any) -> pb.ModelInferRequest:
    """A raw request for rows of one length."""
    array = np.array(rows, "<i4")
    return pb.ModelInferRequest(
        model_name="tiny",
        inputs=[InputTensor(name="token_ids", datatype="INT32", shape=array.shape)],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
        raw_input_contents=[array.tobytes()],
        **fields,
    )


async def call(running: Running, method: str, request: Message, metadata: Sequence[tuple[str, str]] = ()) -> bytes:
    """Calls a method; returns the bytes of the response."""
    method_call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = running.channel.unary_unary(f"{SERVICE}/{method}")
    return await method_call(request.SerializeToString(), metadata=tuple(metadata))


async def infer(running: Running, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """Calls `ModelInfer`."""
    return pb.ModelInferResponse.FromString(await call(running, "ModelInfer", request))
