"""`infer` of the Open Inference Protocol: JSON, bytes, compression and errors."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from electra_serve import errors
from electra_serve.api.rest.problems import PROBLEM_MEDIA_TYPE
from electra_serve.serving.request_context import Priority
from electra_serve.settings.schema import ApiSettings, RestSettings
from electra_serve.tensors import Output, TextInput, TokenInput, Truncation
from tests.fake_service import FakeService, rows_of
from tests.oip_requests import INFER, LENGTH, Bytes, arrays, binary, ids, strings, tensor
from tests.unit.api.rest.conftest import SETTINGS, Rest, connect
from tests.unit.api.rest.strategies import json_values

MEAN: Final = {"outputs": [{"name": "mean_output"}]}
DATATYPES: Final = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
LIMIT: Final = SETTINGS.max_body_bytes


def tokens(service: FakeService) -> TokenInput:
    """Ids of the last request."""
    found = service.requests[-1].input
    assert isinstance(found, TokenInput)
    return found


async def test_ids_to_all_outputs(client: httpx.AsyncClient, rest: Rest) -> None:
    response = await client.post(INFER, json=ids([[1, 2, 3], [4, 5, 6]], 2, 3))
    assert response.json().keys() == {"model_name", "model_version", "outputs"}
    assert (response.json()["model_name"], response.json()["model_version"]) == ("electra_demo", "1")
    found = arrays(response)
    assert list(found) == [
        "sequence_output",
        "pooled_output",
        "cls_output",
        "mean_output",
        "embedding",
        "token_counts",
    ]
    assert found["sequence_output"].tolist() == [[[1, 1], [2, 2], [3, 3]], [[4, 4], [5, 5], [6, 6]]]
    assert (found["mean_output"].tolist(), found["token_counts"].tolist()) == ([[2, 2], [5, 5]], [3, 3])
    assert rest.counted(model="electra_demo", code="ok", transport="oip_rest") == 1
    assert rest.service.requests[0].rectangular


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ([[1, 2], [3, 4]], (2, 2)),
        ([1, 2, 3, 4], (2, 2)),
        ([1.0, 2.0, 3, 4], (2, 2)),
        ([[1.0, 2.0], [3.0, 4e0]], (2, 2)),
    ],
)
async def test_forms_of_data(client: httpx.AsyncClient, rest: Rest, data: list[object], shape: tuple[int, ...]) -> None:
    await client.post(INFER, json=ids(data, *shape) | MEAN)
    assert rows_of(rest.service.requests[0]) == [[1, 2], [3, 4]]


async def test_one_sequence_needs_no_batch(client: httpx.AsyncClient, rest: Rest) -> None:
    found = arrays(await client.post(INFER, json=ids([7, 8], 2, name="input_ids") | MEAN))
    assert rows_of(rest.service.requests[0]) == [[7, 8]]
    assert found["mean_output"].tolist() == [[7.5, 7.5]]


async def test_segments_and_masks_under_both_names(client: httpx.AsyncClient, rest: Rest) -> None:
    for ids_, segments, mask in (
        ("token_ids", "segment_ids", "padding_mask"),
        ("input_ids", "token_type_ids", "attention_mask"),
    ):
        inputs = [
            tensor(mask, [True, False], [1, 2], "BOOL"),
            tensor(ids_, [[7, 8]], [1, 2], "UINT16"),
            tensor(segments, [0, 1], [1, 2], "INT8"),
        ]
        await client.post(INFER, json={"inputs": inputs} | MEAN)
        given = tokens(rest.service)
        assert given.segment_ids is not None
        assert given.padding_mask is not None
        fields = (given.token_ids, given.segment_ids, given.padding_mask)
        assert [[row.tolist() for row in rows] for rows in fields] == [[[7, 8]], [[0, 1]], [[1, 0]]]


@pytest.mark.parametrize(
    ("data", "shape", "texts"),
    [
        (["a", "bc"], [2], ("a", "bc")),
        (["a", "bc"], [2, 1], ("a", "bc")),
        ([["a"], ["bc"]], [2, 1], ("a", "bc")),
        (["a", "bc"], [1, 2], (("a", "bc"),)),
        ([["a", "b"], ["c", "d"]], [2, 2], (("a", "b"), ("c", "d"))),
    ],
)
async def test_texts(
    client: httpx.AsyncClient, rest: Rest, data: object, shape: list[int], texts: tuple[object, ...]
) -> None:
    body = {"inputs": [tensor("text", data, shape, "BYTES")]} | MEAN
    assert (await client.post(INFER, json=body)).status_code == 200
    assert rest.service.requests[0].input == TextInput(texts)  # type: ignore[arg-type]


async def test_rows_of_texts_are_padded_to_a_rectangle(client: httpx.AsyncClient) -> None:
    body = {
        "inputs": [tensor("text", ["a", "bcd"], [2], "BYTES")],
        "outputs": [{"name": "token_counts"}, {"name": "last_hidden_state"}],
    }
    found = arrays(await client.post(INFER, json=body))
    assert list(found) == ["token_counts", "last_hidden_state"]
    assert found["token_counts"].tolist() == [1, 3]
    assert found["last_hidden_state"][..., 0].tolist() == [[97, 0, 0], [98, 99, 100]]


async def test_parameters_reach_the_service(client: httpx.AsyncClient, rest: Rest) -> None:
    parameters = {"priority": 1, "timeout": 60_000_000, "truncate": True, "content_type": "np", "headers": {"a": "b"}}
    body = ids([[1]], 1, 1) | {"parameters": parameters, "model_name": "ignored", "id": "r-1"} | MEAN
    response = await client.post("/v2/models/electra_demo/versions/1/infer", json=body)
    assert response.json()["id"] == "r-1"
    request = rest.service.requests[0]
    assert (request.outputs, request.truncation) == (frozenset({Output.MEAN}), Truncation.LONGEST_FIRST)
    assert request.context.priority is Priority.HIGH
    assert request.context.timeout_s is not None
    assert 30 < request.context.timeout_s <= 60


@pytest.mark.parametrize("id_", ["", "a", "\u00e9" * 1024])
async def test_the_id_is_repeated(client: httpx.AsyncClient, id_: str) -> None:
    assert (await client.post(INFER, json=ids([[1]], 1, 1) | {"id": id_} | MEAN)).json()["id"] == id_


@pytest.mark.parametrize("member", ["id", "outputs", "parameters"])
async def test_null_is_absent(client: httpx.AsyncClient, member: str) -> None:
    response = await client.post(INFER, json=ids([[1]], 1, 1) | {member: None})
    assert "id" not in response.json()
    assert len(arrays(response)) == 6


async def test_no_outputs_are_all_outputs(client: httpx.AsyncClient) -> None:
    assert len(arrays(await client.post(INFER, json=ids([[1]], 1, 1) | {"outputs": []}))) == 6


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/json", None])
async def test_bytes_both_ways(client: httpx.AsyncClient, rest: Rest, content_type: str | None) -> None:
    body, headers = binary(
        Bytes.of("token_ids", np.array([[1, 2], [3, 4]])),
        Bytes.of("padding_mask", np.array([[True, False], [True, True]])),
        parameters={"binary_data_output": True},
    )
    headers |= {} if content_type is None else {"content-type": content_type}
    found = arrays(await client.post(INFER, content=body, headers=headers))
    assert found["sequence_output"].shape == (2, 2, 2)
    mask = tokens(rest.service).padding_mask
    assert mask is not None
    assert [row.tolist() for row in mask] == [[1, 0], [1, 1]]


async def test_each_output_may_choose(client: httpx.AsyncClient) -> None:
    outputs = [
        {"name": "cls_output", "parameters": {"binary_data": False}},
        {"name": "mean_output"},
        {"name": "token_counts", "parameters": {"binary_data": True}},
    ]
    for by_default in (False, True):
        members = {"parameters": {"binary_data_output": by_default}, "outputs": outputs}
        response = await client.post(INFER, json=ids([[1, 3]], 1, 2) | members)
        found = arrays(response)
        described = json.loads(response.content[: int(response.headers[LENGTH])])["outputs"]
        assert ["data" in output for output in described] == [True, not by_default, False]
        assert (found["mean_output"].tolist(), found["token_counts"].tolist()) == ([[2, 2]], [2])


async def test_json_and_bytes_in_one_request(client: httpx.AsyncClient, rest: Rest) -> None:
    mask = Bytes.of("attention_mask", np.array([[1, 1, 0]], np.int8))
    inputs = [tensor("input_ids", [[7, 8, 9]], [1, 3]), mask.header]
    head = json.dumps({"inputs": inputs} | MEAN).encode()
    arrays(await client.post(INFER, content=head + mask.data, headers={LENGTH: str(len(head))}))
    assert rows_of(rest.service.requests[0]) == [[7, 8, 9]]


async def test_texts_as_bytes(client: httpx.AsyncClient, rest: Rest) -> None:
    given = Bytes("text", strings("hé".encode(), b"", b"c", b"d"), [2, 2], "BYTES")
    body, headers = binary(given, **MEAN)
    assert (await client.post(INFER, content=body, headers=headers)).status_code == 200
    assert rest.service.requests[0].input == TextInput((("hé", ""), ("c", "d")))


@given(
    array=st.sampled_from(DATATYPES)
    .map(lambda name: np.dtype(name.lower()))
    .flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(min_dims=1, max_dims=2, max_side=4), elements=st.integers(0, 127)
        )
    ),
    id_=st.none() | st.text(max_size=20),
    asked=st.booleans(),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_array_comes_back(array: Any, id_: str | None, asked: bool) -> None:
    rest = Rest()
    rows = np.atleast_2d(array)
    async with connect(rest.app()) as client:
        body, headers = binary(Bytes.of("token_ids", array), id=id_, parameters={"binary_data_output": asked})
        response = await client.post(INFER, content=body, headers=headers)
    found = arrays(response)
    assert rows_of(rest.service.requests[0]) == rows.tolist()
    np.testing.assert_array_equal(found["sequence_output"][..., 0], rows)
    assert (LENGTH in response.headers) == asked


COMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("coding", COMPRESS)
@pytest.mark.parametrize("width", [1, 400], ids=["small", "large"])
async def test_compressed_both_ways(rest: Rest, coding: str, width: int) -> None:
    rows = np.arange(32 * width).reshape(32, width) % 100
    body, headers = binary(Bytes.of("token_ids", rows), parameters={"binary_data_output": True})
    headers |= {"content-encoding": coding, "accept-encoding": coding}
    async with connect(rest.app(RestSettings(), apis=ApiSettings())) as client:
        response = await client.post(INFER, content=COMPRESS[coding](body), headers=headers)
    assert response.headers["content-encoding"] == coding
    np.testing.assert_array_equal(arrays(response)["sequence_output"][..., 0], rows)
    assert rows_of(rest.service.requests[0]) == rows.tolist()


@pytest.mark.parametrize("accepted", ["gzip, deflate", "gzip, deflate, br", "br", "identity", "*", "gzip;q=0", ""])
async def test_lists_of_encodings_get_plain_responses(client: httpx.AsyncClient, accepted: str) -> None:
    response = await client.post(INFER, json=ids([[1]], 1, 1), headers={"accept-encoding": accepted})
    assert "content-encoding" not in response.headers
    arrays(response)


def zeros(size: int) -> bytes:
    return gzip.compress(json.dumps(ids([[1]], 1, 1)).encode() + b" " * size, mtime=0)


@pytest.mark.parametrize(
    ("content", "coding", "code"),
    [
        (zeros(0)[:-1], "gzip", "malformed_request"),
        (zeros(0)[:-9], "gzip", "malformed_request"),
        (zeros(0) + b"x", "gzip", "malformed_request"),
        (zeros(0) * 2, "gzip", "malformed_request"),
        (zeros(0) + b"\0" * 70_000, "gzip", "payload_too_large"),
        (b"", "gzip", "malformed_request"),
        (b"{}", "gzip", "malformed_request"),
        (zeros(0), "deflate", "malformed_request"),
        (zlib.compress(b"{}")[2:-4], "deflate", "malformed_request"),
        (zeros(LIMIT), "gzip", "payload_too_large"),
        (zeros(200 * LIMIT), "gzip", "payload_too_large"),
        (zeros(0), "br", "unsupported_media_type"),
        (zeros(0), "gzip, gzip", "unsupported_media_type"),
    ],
)
async def test_bad_compression(client: httpx.AsyncClient, content: bytes, coding: str, code: str) -> None:
    response = await client.post(INFER, content=content, headers={"content-encoding": coding})
    assert response.json()["code"] == code
    if code == "unsupported_media_type":
        assert response.headers["accept-encoding"] == "gzip, deflate, identity"


INT64: Final = Bytes.of("token_ids", np.array([[1, 2]]))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": [1]}, "inputs"),
        ({"inputs": [{}] * 17}, "inputs"),
        ({"inputs": [{}]}, "inputs[0].name"),
        ({"inputs": [{"name": "token_ids"}]}, "inputs[0].datatype"),
        ({"inputs": [{"name": "token_ids", "datatype": "INT64"}]}, "inputs[0].shape"),
        (ids([[1]], 1, 1) | {"inputs": [tensor("token_ids", [1], [1]), 7]}, "inputs"),
        (ids(None, 1, 1), "token_ids"),
        (ids("ids", 1, 1), "token_ids"),
        (ids([[1, 2]], 1, 3), "token_ids"),
        (ids([[1, 2], [3]], 2, 2), "token_ids"),
        (ids([[1], [2, 3, 4]], 2, 2), "token_ids"),
        (ids([[1, 2]], 2, 1), "token_ids"),
        (ids([[1], 2], 2, 1), "token_ids"),
        (ids([1, [2]], 2, 1), "token_ids[1]"),
        (ids([[[1]], [[2]]], 2, 1), "token_ids[0]"),
        (ids([[1]], 1), "token_ids"),
        (ids([1], 1, 1, 1), "token_ids"),
        (ids([], -1, 1), "token_ids"),
        (ids([1], 2**62, 4), "token_ids"),
        (ids([1, 1.5], 1, 2, name="input_ids"), "input_ids[0]"),
        (ids([1, True], 2, 1), "token_ids[1]"),
        (ids([1, "2"], 2, 1), "token_ids[1]"),
        (ids([1, None], 2, 1), "token_ids[1]"),
        (ids([1, 2**63], 2, 1), "token_ids[1]"),
        (ids([1, 2**70], 2, 1), "token_ids[1]"),
        (ids([1.0, 1e300], 2, 1), "token_ids[1]"),
        ({"inputs": [tensor("token_ids", [1, 128], [2, 1], "INT8")]}, "token_ids[1]"),
        ({"inputs": [tensor("token_ids", [1, -1], [2, 1], "UINT64")]}, "token_ids[1]"),
        ({"inputs": [tensor("token_ids", [1, 256.0], [2, 1], "UINT8")]}, "token_ids[1]"),
        ({"inputs": [tensor("padding_mask", [1, 2], [2, 1], "BOOL")]}, "padding_mask[1]"),
        ({"inputs": [tensor("token_ids", [1], [1], "FP32")]}, "token_ids"),
        ({"inputs": [tensor("text", ["a", 1], [2], "BYTES")]}, "text"),
        ({"inputs": [tensor("text", ["a"] * 3, [1, 3], "BYTES")]}, "text"),
        ({"inputs": [tensor("tokens", [1], [1])]}, "inputs"),
        ({"inputs": [tensor("token_ids", [1], [1]), tensor("input_ids", [1], [1])]}, "input_ids"),
        ({"inputs": [tensor("token_ids", [1], [1]), tensor("text", ["a"], [1], "BYTES")]}, "inputs"),
        ({"inputs": [tensor("token_ids", [1], [1]), tensor("attention_mask", [1], [1, 1])]}, "attention_mask"),
        (ids([1], 1) | {"id": 7}, "id"),
        (ids([1], 1) | {"id": "a" * 1025}, "id"),
        (ids([1], 1) | {"parameters": []}, "parameters"),
        (ids([1], 1) | {"parameters": {"timeout": -1}}, "timeout"),
        (ids([1], 1) | {"parameters": {"priority": "high"}}, "priority"),
        (ids([1], 1) | {"parameters": {"truncate": 1}}, "truncate"),
        (ids([1], 1) | {"parameters": {"truncate": []}}, "truncate"),
        (ids([1], 1) | {"parameters": {"timeout": [1]}}, "timeout"),
        (ids([1], 1) | {"parameters": {"priority": {}}}, "priority"),
        (ids([1], 1) | {"parameters": {"binary_data_output": 1}}, "binary_data_output"),
        (ids([1], 1) | {"outputs": {}}, "outputs"),
        (ids([1], 1) | {"outputs": [{}]}, "outputs[0].name"),
        (ids([1], 1) | {"outputs": [{"name": "hunter2"}]}, "outputs"),
        (ids([1], 1) | {"outputs": [{"name": "sequence_output"}, {"name": "last_hidden_state"}]}, "outputs"),
        (ids([1], 1) | {"outputs": [{"name": "cls_output", "parameters": {"classification": 3}}]}, "cls_output"),
        (ids([1], 1) | {"outputs": [{"name": "cls_output", "parameters": {"binary_data": 1}}]}, "binary_data"),
        ({"inputs": [tensor("token_ids", [1], [1]) | {"parameters": {"shared_memory_region": "r"}}]}, "token_ids"),
        ({"inputs": [tensor("token_ids", [1], [1]) | {"parameters": 7}]}, "token_ids"),
        ({"inputs": [tensor("token_ids", [1], [1]) | {"parameters": {"binary_data_size": 8}}]}, "token_ids"),
        ({"inputs": [INT64.header]}, "token_ids"),
        ({"inputs": [INT64.header | {"parameters": {"binary_data_size": 0}}]}, "token_ids"),
        ({"inputs": [INT64.header | {"parameters": {"binary_data_size": -1}}]}, "token_ids"),
        ({"inputs": [INT64.header | {"parameters": {"binary_data_size": True}}]}, "token_ids"),
        ({"inputs": [INT64.header | {"parameters": {"binary_data_size": 1e3}}]}, "token_ids"),
    ],
)
async def test_bad_requests(client: httpx.AsyncClient, rest: Rest, body: dict[str, Any], field: str) -> None:
    response = await client.post(INFER, json=body)
    assert response.status_code in {400, 413}
    assert response.headers["content-type"] == "application/json"
    assert response.json().get("field") == field
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert "hunter2" not in response.text
    assert rest.service.requests == []
    code = response.json()["code"]
    assert rest.counted(model="electra_demo", code=code, transport="oip_rest") == 1


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "", "x", "100000", "9" * 19])
async def test_the_length_of_the_json_is_within_the_body(client: httpx.AsyncClient, value: str) -> None:
    response = await client.post(INFER, json=ids([1], 1), headers={LENGTH: value})
    assert (response.status_code, response.json()["field"]) == (400, LENGTH)


@pytest.mark.parametrize(
    "change",
    [
        lambda body, length: (body[:-1], length),
        lambda body, length: (body + b"\0", length),
        lambda body, length: (body, length - 1),
        lambda body, length: (body, length + 1),
        lambda body, length: (body[:length], length),
        lambda body, length: (body + body, length),
    ],
    ids=["short", "long", "cut JSON", "JSON with a byte", "no bytes", "twice"],
)
async def test_bytes_must_be_those_of_the_inputs(client: httpx.AsyncClient, rest: Rest, change: Any) -> None:
    body, headers = binary(INT64)
    content, length = change(body, int(headers[LENGTH]))
    response = await client.post(INFER, content=content, headers={LENGTH: str(length)})
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")
    assert rest.service.requests == []


@pytest.mark.parametrize(
    "data",
    [
        strings(b"a"),
        strings(b"a", b"b", b"c"),
        strings(b"a", b"b")[:-1],
        strings(b"a", b"b") + b"\0",
        b"\xff\xff\xff\xff" + strings(b"a"),
        strings(b"a", b"\xff"),
        b"\0\0",
        b"",
    ],
)
async def test_bytes_of_texts_must_have_their_lengths(client: httpx.AsyncClient, data: bytes) -> None:
    body, headers = binary(Bytes("text", data, [2], "BYTES"))
    response = await client.post(INFER, content=body, headers=headers)
    assert (response.status_code, response.json()["code"], response.json()["field"]) == (400, "invalid_input", "text")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"[" * 3000, "malformed_request"),
        (b'{"inputs":' + b"[" * 1500 + b"]" * 1500 + b"}", "malformed_request"),
        (b'{"inputs":[{"data":[[[1]]]}]}' + b"[]" * 800, "malformed_request"),
        (b'{"inputs":[' + b"[]," * 900 + b"1]}", "payload_too_large"),
        (b'{"inputs":[' + b"{}," * 900 + b"1]}", "malformed_request"),
        (b'{"inputs":[{' + b'"a":1,' * 500 + b'"b":1}]}', "malformed_request"),
        (b"NaN", "malformed_request"),
        (b"[]", "malformed_request"),
        (b"7", "malformed_request"),
        (b"", "malformed_request"),
        (b'{"id":"\xff"}', "malformed_request"),
        (b" " * (LIMIT + 1), "payload_too_large"),
    ],
)
async def test_hostile_json(client: httpx.AsyncClient, rest: Rest, content: bytes, code: str) -> None:
    response = await client.post(INFER, content=content)
    assert (response.json()["code"], response.headers["content-type"]) == (code, "application/json")
    assert rest.service.requests == []


async def test_json_has_a_lower_limit_than_bytes(rest: Rest) -> None:
    rows = np.ones((4, 200), np.int64)
    body, headers = binary(Bytes.of("token_ids", rows), **MEAN)
    assert len(body) > LIMIT
    async with connect(rest.app()) as client:
        assert (await client.post(INFER, content=body, headers=headers)).status_code == 200
        head = json.dumps(ids(rows.tolist(), 4, 200) | {"unknown": "a" * LIMIT}).encode()
        for length in ({}, {LENGTH: str(len(head))}):
            rejection = await client.post(INFER, content=head, headers=length)
            assert (rejection.status_code, rejection.json()["code"]) == (413, "payload_too_large")
    assert "send tensors as binary data" in rejection.json()["error"]


@pytest.mark.parametrize(
    ("error", "status", "field"),
    [
        (errors.InvalidInput("no", field="token_ids[3][1]"), 400, "input_ids[3][1]"),
        (errors.InvalidInput("no", field="padding_mask[0]"), 400, "attention_mask[0]"),
        (errors.InvalidInput("no", field="outputs"), 400, "outputs"),
        (errors.PayloadTooLarge("no"), 413, None),
        (errors.Overloaded("full", retry_after_s=2.5), 429, None),
        (errors.ModelNotReady("loading", field="model"), 503, "model"),
        (errors.ShuttingDown("draining"), 503, None),
        (errors.DeadlineExceeded("late"), 504, None),
        (errors.EngineFailure("secret"), 500, None),
        (RuntimeError("secret"), 500, None),
    ],
)
async def test_errors_of_the_service(
    client: httpx.AsyncClient, rest: Rest, error: Exception, status: int, field: str | None
) -> None:
    rest.service.fail_with(error)
    inputs = [tensor("input_ids", [1], [1]), tensor("attention_mask", [1], [1])]
    response = await client.post(INFER, json={"inputs": inputs})
    content = response.json()
    assert (response.status_code, content.get("field")) == (status, field)
    assert content.keys() <= {"error", "code", "request_id", "field", "retry_after_s"}
    assert isinstance(content["error"], str)
    assert "secret" not in response.text
    assert ("retry_after_s" in content) == ("retry-after" in response.headers)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v2/models/unknown/infer", "model"),
        ("/v2/models/a/b/infer", "model"),
        ("/v2/models//infer", "model"),
        ("/v2/models/electra_demo/versions/2/infer", "model_version"),
        ("/v2/models/electra_demo/versions/01/infer", "model_version"),
    ],
)
async def test_an_unknown_model_is_rejected_unread(
    client: httpx.AsyncClient, rest: Rest, path: str, field: str
) -> None:
    response = await client.post(path, content=b"no JSON")
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")
    assert response.json()["field"] == field


async def test_a_response_may_be_too_large_as_json_and_not_as_bytes(rest: Rest) -> None:
    settings = RestSettings(max_answer_bytes=1200)
    async with connect(rest.app(settings)) as client:
        await client.post(INFER, json=ids([[1]], 1, 1))
        await client.post(INFER, json=ids([[1]], 1, 1) | {"parameters": {"binary_data_output": True}})
    assert [request.max_values for request in rest.service.requests] == [100, 300]
    sizes = [request.transit and request.transit.bytes_per_value for request in rest.service.requests]
    assert sizes == [20, 8]


@given(json_values, st.sampled_from(["", "inputs", "outputs", "parameters", "id", "entry", "data", "shape"]))
@settings(max_examples=100, deadline=None)
async def test_any_json_gets_a_response_of_the_protocol(value: object, place: str) -> None:
    entry = tensor("token_ids", [1], [1])
    body: object = ids([1], 1) | {place: value}
    if place == "":
        body = value
    elif place == "entry":
        body = {"inputs": [entry, value]}
    elif place in {"data", "shape"}:
        body = {"inputs": [entry | {place: value}]}
    async with connect(Rest().app()) as client:
        response = await client.post(INFER, content=json.dumps(body))
    assert response.status_code in {200, 400, 413}
    assert response.status_code == 200 or isinstance(response.json()["error"], str)


async def test_a_large_response_is_the_same_in_pieces(rest: Rest) -> None:
    rest.service.hidden_dim = 700
    rows = (np.arange(4 * 90).reshape(4, 90) % 100).tolist()
    outputs: dict[str, Any] = {"outputs": [{"name": "sequence_output"}, {"name": "token_counts"}]}
    async with connect(rest.app(RestSettings())) as client:
        written = arrays(await client.post(INFER, json=ids(rows, 4, 90) | outputs))
        asked = ids(rows, 4, 90) | outputs | {"parameters": {"binary_data_output": True}}
        sent = arrays(await client.post(INFER, json=asked))
        packed = arrays(await client.post(INFER, json=asked, headers={"accept-encoding": "gzip"}))
    for name, array in written.items():
        np.testing.assert_array_equal(sent[name], array)
        np.testing.assert_array_equal(packed[name], array)
    assert written["sequence_output"].shape == (4, 90, 700)
    np.testing.assert_array_equal(written["sequence_output"][..., 699], rows)


@pytest.mark.parametrize(
    ("path", "media_type"),
    [(INFER, "application/json"), ("/v2/repository/index", "application/json"), ("/v1/encode", PROBLEM_MEDIA_TYPE)],
)
async def test_other_transfer_codings_get_415(client: httpx.AsyncClient, path: str, media_type: str) -> None:
    response = await client.post(path, content=b"{}", headers={"transfer-encoding": "gzip, chunked"})
    assert (response.status_code, response.headers["content-type"]) == (415, media_type)
    assert response.json()["field"] == "transfer-encoding"
    assert "accept-encoding" not in response.headers
