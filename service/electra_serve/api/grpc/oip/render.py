"""Renders responses without copying their tensors more than once, as `electra_serve.api.grpc.render` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from electra_serve.api.grpc import status
from electra_serve.api.grpc.render import Parts, size, tag
from electra_serve.api.oip.decode import VERSION
from electra_serve.api.oip.outputs import OutputBytes
from electra_serve.errors import ServiceError
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb

FINAL: Final = "triton_final_response"
NO_PARAMETERS: Final[Mapping[str, bool]] = MappingProxyType({})


def from_tensors(
    model: str,
    request_id: str,
    tensors: Sequence[OutputBytes],
    *,
    raw: bool,
    parameters: Mapping[str, bool] = NO_PARAMETERS,
) -> Parts:
    """Returns a `ModelInferResponse`."""
    response = pb.ModelInferResponse(
        model_name=model,
        model_version=VERSION,
        id=request_id,
        parameters={name: pb.InferParameter(bool_param=value) for name, value in parameters.items()},
    )
    parts: Parts = [response.SerializeToString()]
    for tensor in tensors:
        head = pb.ModelInferResponse.InferOutputTensor(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
        ).SerializeToString()
        contents: Parts = [head] if raw else [head, *_contents(tensor)]
        parts += [tag(pb.ModelInferResponse.OUTPUTS_FIELD_NUMBER, size(contents)), *contents]
    if raw:
        for tensor in tensors:
            parts += [tag(pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER, tensor.size), *tensor.pieces]
    return parts


def in_stream(response: Parts) -> Parts:
    """Returns a `ModelStreamInferResponse` that holds `response`."""
    return [tag(pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER, size(response)), *response]


def error_in_stream(error: ServiceError, request_id: str, model: str, log_id: str) -> bytes:
    """Returns a `ModelStreamInferResponse` with an error; its parameters are the trailing metadata of a unary call."""
    response = pb.ModelInferResponse(
        model_name=model,
        id=request_id,
        parameters={
            name: pb.InferParameter(string_param=value) for name, value in status.trailing_metadata(error, log_id)
        },
    )
    return pb.ModelStreamInferResponse(
        error_message=status.details(error, log_id), infer_response=response
    ).SerializeToString()


def _contents(tensor: OutputBytes) -> Parts:
    """Returns the field `contents`; packed floats are the tensor's own bytes."""
    if tensor.datatype == "INT32":
        numbers = np.frombuffer(b"".join(tensor.pieces), "<i4")
        packed: Parts = [pb.InferTensorContents(int_contents=numbers.tolist()).SerializeToString()]
    else:
        packed = [tag(pb.InferTensorContents.FP32_CONTENTS_FIELD_NUMBER, tensor.size), *tensor.pieces]
    return [tag(pb.ModelInferResponse.InferOutputTensor.CONTENTS_FIELD_NUMBER, size(packed)), *packed]
