"""Clients of KServe, over REST and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
import httpx
import numpy as np
import pytest
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
    RESTConfig,
)
from kserve.protocol.infer_type import RequestedOutput

from tests.conformance_clients.served import KEY, Served
from tests.conformance_oip.samples import (
    ABSENT,
    ENCODER,
    IDS,
    PAIRS,
    TEXTS,
    Array,
    check,
    expected,
    mask,
    native_message,
    rectangle,
    texts,
)

AUTHORIZED: Final = {"authorization": f"Bearer {KEY}"}
DATATYPES: Final = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
}

Infer = Callable[[Served, InferRequest], InferResponse]


def over_rest(served: Served, request: InferRequest, **options: Any) -> Any:
    """Infers over REST."""
    return rest(
        lambda client: client.infer(
            served.url, request, model_name=request.model_name, headers=dict(AUTHORIZED), **options
        )
    )


def over_grpc(served: Served, request: InferRequest, **options: Any) -> Any:
    """Infers over gRPC."""
    return rpc(served, lambda client: client.infer(request, headers=tuple(AUTHORIZED.items()), **options))


def rest(call: Callable[[InferenceRESTClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            return await call(client)

    return asyncio.run(run())


def rpc(served: Served, call: Callable[[InferenceGRPCClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with InferenceGRPCClient(served.target) as client:
            return await call(client)

    return asyncio.run(run())


def tensor(name: str, datatype: str, array: Array, *, binary: bool) -> InferInput:
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def request_of(model: str, *inputs: InferInput, binary: bool = False, outputs: tuple[str, ...] = ()) -> InferRequest:
    requested = [RequestedOutput(name, {"binary_data": binary}) for name in outputs]
    return InferRequest(model, list(inputs), request_id="request 7", request_outputs=requested or None)


def array_of(response: InferResponse, name: str) -> Array:
    output: InferOutput | None = response.get_output_by_name(name)
    assert output is not None
    found: Array = output.as_numpy()
    return found


@pytest.fixture(params=[over_rest, over_grpc], ids=["REST", "gRPC"])
def infer(request: pytest.FixtureRequest) -> Infer:
    found: Infer = request.param
    return found


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "typed"])
@pytest.mark.parametrize("output", ["mean_output", "sequence_output"])
def test_ids(output: str, binary: bool, infer: Infer, served: Served) -> None:
    inputs = (
        tensor("input_ids", "INT64", rectangle(IDS), binary=binary),
        tensor("attention_mask", "INT64", mask(IDS), binary=binary),
    )
    response = infer(served, request_of(ENCODER, *inputs, binary=binary, outputs=(output,)))
    assert (response.model_name, response.id) == (ENCODER, "request 7")
    check(array_of(response, output), expected(served, output, token_ids=IDS))


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "typed"])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_datatypes(datatype: str, binary: bool, infer: Infer, served: Served) -> None:
    ids = rectangle(IDS, np.int64 if datatype == "BOOL" else DATATYPES[datatype])
    inputs = (
        tensor("token_ids", "INT64" if datatype == "BOOL" else datatype, ids, binary=binary),
        tensor("padding_mask", datatype, mask(IDS, DATATYPES[datatype]), binary=binary),
    )
    response = infer(served, request_of(ENCODER, *inputs, outputs=("mean_output",)))
    check(array_of(response, "mean_output"), expected(served, "mean_output", token_ids=IDS))


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "typed"])
@pytest.mark.parametrize("samples", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_texts(samples: Any, binary: bool, infer: Infer, served: Served) -> None:
    text = tensor("text", "BYTES", texts(samples), binary=binary)
    response = infer(served, request_of(ENCODER, text, outputs=("mean_output",)))
    check(array_of(response, "mean_output"), expected(served, "mean_output", text=samples))


def test_output_0_without_names(infer: Infer, served: Served) -> None:
    """Transformers of KServe take the first output."""
    response = infer(served, request_of(ENCODER, tensor("input_ids", "INT64", rectangle(IDS), binary=False)))
    wanted = expected(served, "sequence_output", token_ids=rectangle(IDS).tolist())
    check(response.outputs[0].as_numpy(), wanted)


def test_readiness(served: Served) -> None:
    assert rest(lambda client: client.is_server_live(served.url)) is True
    assert rest(lambda client: client.is_server_ready(served.url)) is True
    assert rest(lambda client: client.is_model_ready(served.url, ENCODER, headers=AUTHORIZED)) is True
    assert rest(lambda client: client.is_model_ready(served.url, ABSENT, headers=AUTHORIZED)) is False
    metadata = tuple(AUTHORIZED.items())
    assert rpc(served, lambda client: client.is_server_live()) is True
    assert rpc(served, lambda client: client.is_server_ready()) is True
    assert rpc(served, lambda client: client.is_model_ready(ENCODER, headers=metadata)) is True
    assert rpc(served, lambda client: client.is_model_ready(ABSENT, headers=metadata)) is False


def rejection(infer: Infer, served: Served, request: InferRequest, **options: Any) -> tuple[str, str]:
    """Infers; returns status and message of what is raised."""
    if infer is over_rest:
        with pytest.raises(httpx.HTTPStatusError) as caught:
            infer(served, request, **options)
        return str(caught.value.response.status_code), str(caught.value)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        infer(served, request, **options)
    return refused.value.code().name, str(refused.value.details())


@pytest.mark.parametrize(
    ("model", "body", "statuses"),
    [
        (ABSENT, {}, {"404", "NOT_FOUND"}),
        (ENCODER, {"token_ids": [[10**6] * 5]}, {"400", "INVALID_ARGUMENT"}),
    ],
    ids=["model", "id"],
)
def test_errors_have_our_message(
    model: str, body: Mapping[str, Any], statuses: set[str], infer: Infer, served: Served
) -> None:
    rows = body.get("token_ids", [list(IDS[0])])
    sent = request_of(model, tensor("token_ids", "INT64", np.array(rows), binary=True))
    status, message = rejection(infer, served, sent)
    assert status in statuses
    assert native_message(served, model=model, token_ids=rows) in message


def test_deadlines(infer: Infer, served: Served) -> None:
    sent = request_of(ENCODER, tensor("token_ids", "INT64", rectangle(IDS), binary=False))
    sent.parameters = {"timeout": 1}
    status, _ = rejection(infer, served, sent)
    assert status in {"504", "DEADLINE_EXCEEDED"}


def test_keys_are_needed(served: Served) -> None:
    sent = request_of(ENCODER, tensor("token_ids", "INT64", rectangle(IDS), binary=False))
    with pytest.raises(httpx.HTTPStatusError, match="key") as caught:
        rest(lambda client: client.infer(served.url, sent, model_name=ENCODER))
    assert caught.value.response.status_code == 401
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        rpc(served, lambda client: client.infer(sent))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
