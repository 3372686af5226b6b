"""Requests of the part `oip`: every form has the same ids."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.load.http_connection import HttpResponse
from benchmarks.oip import BUILDERS, CASES, NATIVE_GRPC, OIP_BINARY, OIP_JSON, OIP_RAW, OIP_TYPED, Case
from electra_serve.proto.electra.v1 import encoder_pb2
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb


def ids_of(api: str) -> Any:
    data = BUILDERS[api](Case(api, 1, rows=2, length=3))
    if api == NATIVE_GRPC:
        rows = encoder_pb2.EncodeRequest.FromString(data).tokens.token_ids
        return [np.frombuffer(row.data, "<i4").tolist() for row in rows]
    if api in {OIP_RAW, OIP_TYPED}:
        message = pb.ModelInferRequest.FromString(data)
        typed = message.inputs[0].contents.int64_contents
        array = np.frombuffer(message.raw_input_contents[0], "<i8") if api == OIP_RAW else np.array(typed)
        return array.reshape(message.inputs[0].shape).tolist()
    request = HttpResponse.parse(data)
    if api == OIP_BINARY:
        length = int(request.headers["inference-header-content-length"])
        (tensor,) = json.loads(request.body[:length])["inputs"]
        assert len(request.body) == length + tensor["parameters"]["binary_data_size"]
        return np.frombuffer(request.body[length:], "<i8").reshape(tensor["shape"]).tolist()
    if api == OIP_JSON:
        (tensor,) = json.loads(request.body)["inputs"]
        return np.array(tensor["data"]).reshape(tensor["shape"]).tolist()
    return json.loads(request.body)["token_ids"]


@pytest.mark.parametrize("api", BUILDERS)
def test_every_form_has_the_same_ids(api: str) -> None:
    assert ids_of(api) == [[1, 2, 3], [4, 5, 6]]


def test_every_form_is_measured() -> None:
    assert {case.api for case in CASES} == set(BUILDERS)
