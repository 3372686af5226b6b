"""Clients generated from the protocol's own documents: strict models of every response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import grpc
import httpx
import numpy as np
import pytest
from open_inference.grpc import protocol
from open_inference.grpc.service import GRPCInferenceServiceStub
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.errors.bad_request_error import BadRequestError
from open_inference.openapi.errors.not_found_error import NotFoundError
from open_inference.openapi.types import InferenceRequest, RequestInput, RequestOutput

from tests.conformance_clients.served import KEY, Served
from tests.conformance_oip.samples import ABSENT, CLASSIFIER, ENCODER, IDS, TEXTS, check, expected, mask, rectangle

AUTHORIZED: Final = {"authorization": f"Bearer {KEY}"}


@pytest.fixture
def rest(served: Served) -> Iterator[OpenInferenceClient]:
    with httpx.Client(headers=AUTHORIZED, timeout=60) as connection:
        yield OpenInferenceClient(base_url=served.url, httpx_client=connection)


@pytest.fixture
def stub(served: Served) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(served.target) as channel:
        yield GRPCInferenceServiceStub(channel)


def floats(output: Any) -> Any:
    """The numbers of an output of REST, which the client has nested in its own types."""
    data = output.data
    found = getattr(data, "__root__", data)
    return np.array(found, np.float32).reshape(output.shape)


def test_health(rest: OpenInferenceClient) -> None:
    rest.check_server_liveness()
    rest.check_server_readiness()
    rest.check_model_readiness(ENCODER)
    rest.check_model_version_readiness(ENCODER, "1")
    with pytest.raises(NotFoundError):
        rest.check_model_readiness(ABSENT)


def test_metadata(rest: OpenInferenceClient) -> None:
    assert rest.read_server_metadata().name == "electra-serve"
    for found in (rest.read_model_metadata(ENCODER), rest.read_model_version_metadata(ENCODER, "1")):
        assert (found.name, found.versions) == (ENCODER, ["1"])
        assert {tensor.name for tensor in found.inputs or []} >= {"token_ids", "text"}
        assert {tensor.name: tensor.datatype for tensor in found.outputs or []}["mean_output"] == "FP32"


def test_ids_that_arrive_as_floats(rest: OpenInferenceClient, served: Served) -> None:
    """The client writes integers of tensors as floats."""
    inputs = [
        RequestInput(name=name, shape=list(array.shape), datatype="INT64", data=array.flatten().tolist())
        for name, array in (("token_ids", rectangle(IDS)), ("padding_mask", mask(IDS)))
    ]
    request = InferenceRequest(id="request 7", inputs=inputs, outputs=[RequestOutput(name="mean_output")])
    response = rest.model_infer(ENCODER, request=request)
    assert (response.model_name, response.model_version, response.id) == (ENCODER, "1", "request 7")
    check(floats(response.outputs[0]), expected(served, "mean_output", token_ids=IDS))


def test_texts(rest: OpenInferenceClient, served: Served) -> None:
    text = RequestInput(name="text", shape=[len(TEXTS)], datatype="BYTES", data=list(TEXTS))
    request = InferenceRequest(inputs=[text], outputs=[RequestOutput(name="mean_output")])
    response = rest.model_version_infer(ENCODER, "1", request=request)
    check(floats(response.outputs[0]), expected(served, "mean_output", text=TEXTS))


def test_errors(rest: OpenInferenceClient) -> None:
    unknown = RequestInput(name="pixels", shape=[1], datatype="INT64", data=[1])
    with pytest.raises(BadRequestError) as caught:
        rest.model_infer(ENCODER, request=InferenceRequest(inputs=[unknown]))
    assert "inputs must be among" in dict(caught.value.body)["error"]
    with pytest.raises(ApiError) as refused:
        rest.model_infer(ABSENT, request=InferenceRequest(inputs=[unknown]))
    assert refused.value.status_code == 404
    assert isinstance(refused.value.body["error"], str)


def call(method: Any, request: Any) -> Any:
    return method(request, metadata=tuple(AUTHORIZED.items()), timeout=60)


def test_grpc_health_and_metadata(stub: GRPCInferenceServiceStub) -> None:
    assert call(stub.ServerLive, protocol.ServerLiveRequest()).live
    assert call(stub.ServerReady, protocol.ServerReadyRequest()).ready
    assert call(stub.ModelReady, protocol.ModelReadyRequest(name=ENCODER, version="1")).ready
    assert not call(stub.ModelReady, protocol.ModelReadyRequest(name=ABSENT)).ready
    assert call(stub.ServerMetadata, protocol.ServerMetadataRequest()).name == "electra-serve"
    found = call(stub.ModelMetadata, protocol.ModelMetadataRequest(name=ENCODER))
    assert (found.name, list(found.versions), found.platform) == (ENCODER, ["1"], "electra")
    assert int(found.properties["max_sequence_length"]) > 0


def infer_request(model: str, **contents: Any) -> Any:
    ids, masked = rectangle(IDS), mask(IDS)
    tensors = [
        protocol.ModelInferRequest.InferInputTensor(
            name=name,
            datatype="INT64",
            shape=array.shape,
            contents=protocol.InferTensorContents(int64_contents=array.flatten().tolist()),
        )
        for name, array in (("token_ids", ids), ("padding_mask", masked))
    ]
    output = protocol.ModelInferRequest.InferRequestedOutputTensor(name="mean_output")
    return protocol.ModelInferRequest(model_name=model, id="request 7", inputs=tensors, outputs=[output], **contents)


def test_typed_requests_get_typed_responses(stub: GRPCInferenceServiceStub, served: Served) -> None:
    found = call(stub.ModelInfer, infer_request(ENCODER))
    assert (found.model_name, found.model_version, found.id) == (ENCODER, "1", "request 7")
    assert not found.raw_output_contents
    (output,) = found.outputs
    array = np.array(output.contents.fp32_contents, np.float32).reshape(output.shape)
    check(array, expected(served, "mean_output", token_ids=IDS))


def test_raw_requests_get_raw_responses(stub: GRPCInferenceServiceStub, served: Served) -> None:
    request = infer_request(ENCODER)
    for tensor in request.inputs:
        request.raw_input_contents.append(np.array(tensor.contents.int64_contents, "<i8").tobytes())
        tensor.ClearField("contents")
    found = call(stub.ModelInfer, request)
    (output,) = found.outputs
    assert not output.HasField("contents")
    array = np.frombuffer(found.raw_output_contents[0], "<f4").reshape(output.shape)
    check(array, expected(served, "mean_output", token_ids=IDS))


def test_both_raw_and_typed(stub: GRPCInferenceServiceStub) -> None:
    request = infer_request(ENCODER, raw_input_contents=[b"\0" * 8, b"\0" * 8])
    with pytest.raises(grpc.RpcError) as caught:
        call(stub.ModelInfer, request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "raw_input_contents" in (caught.value.details() or "")


def test_the_classifier_is_served_too(stub: GRPCInferenceServiceStub) -> None:
    assert call(stub.ModelReady, protocol.ModelReadyRequest(name=CLASSIFIER)).ready
