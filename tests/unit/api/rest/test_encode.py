from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from electra_serve import errors
from electra_serve.api.rest.endpoint import LARGE_BODY_BYTES
from electra_serve.serving.request_context import Priority
from electra_serve.settings.schema import RestSettings
from electra_serve.tensors import TextInput, TokenInput
from tests.unit.api.rest.asgi import DISCONNECT, Wire, body_message, http_scope, settle
from tests.unit.api.rest.conftest import SETTINGS, Rest, connect
from tests.unit.api.rest.strategies import json_values

JSON = {"content-type": "application/json"}
IDS = {"token_ids": [[2, 17, 3], [2, 3]], "outputs": ["pooled_output"]}
SECRET = "xyzzy-1234"


async def post(client: httpx.AsyncClient, body: bytes, **headers: str) -> httpx.Response:
    return await client.post(
        "/v1/encode", content=body, headers=JSON | {k.replace("_", "-"): v for k, v in headers.items()}
    )


async def test_ids_to_numbers(client: httpx.AsyncClient, rest: Rest) -> None:
    response = await client.post("/v1/encode", json={"token_ids": [[2, 17, 3], [2, 3]]})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "model": "electra_demo",
        "sequence_output": [[[2.0, 2.0], [17.0, 17.0], [3.0, 3.0]], [[2.0, 2.0], [3.0, 3.0]]],
        "pooled_output": [[2.0, 2.0], [2.0, 2.0]],
        "usage": {"sequences": 2, "tokens": 5},
        "truncated": [False, False],
    }
    assert rest.counted(model="electra_demo", code="ok") == 1


async def test_text_to_bytes(client: httpx.AsyncClient, rest: Rest) -> None:
    body = {"text": ["four", ["a", "pair"]], "outputs": ["cls_output"], "encoding_format": "base64"}
    rows = (await client.post("/v1/encode", json=body)).json()["cls_output"]
    assert [(row["dtype"], row["shape"]) for row in rows] == [("float32", [2])] * 2
    assert [np.frombuffer(base64.b64decode(row["data"]), "<f4").tolist() for row in rows] == [
        [ord("f")] * 2,
        [ord("a")] * 2,
    ]
    assert rest.service.requests[0].input == TextInput(("four", ("a", "pair")))


async def test_headers_and_peer_reach_the_service(client: httpx.AsyncClient, rest: Rest) -> None:
    await client.post("/v1/encode", json=IDS, headers={"x-request-timeout-ms": "9000", "x-priority": "low"})
    request = rest.service.requests[0]
    assert (request.context.client, request.context.priority) == ("192.0.2.7", Priority.LOW)
    assert request.context.timeout_s is not None
    assert 0 < request.context.timeout_s < 9


async def test_a_request_is_rejected_unread_where_there_is_no_room(rest: Rest) -> None:
    rest.service.full = errors.Overloaded("full", retry_after_s=1.5)
    wire = Wire()  # with no body: a read would never end
    async with asyncio.timeout(5):
        await wire.run(rest.app(), http_scope("/v1/encode", method="POST", headers=JSON))
    assert (wire.status, wire.headers["retry-after"]) == (429, "2")
    assert rest.counted(model="electra_demo", code="overloaded") == 1


@pytest.mark.parametrize("name", ["x-request-timeout-ms", "x-priority"])
async def test_odd_headers_are_malformed(client: httpx.AsyncClient, rest: Rest, name: str) -> None:
    response = await client.post("/v1/encode", json=IDS, headers={name: SECRET})
    assert (response.status_code, response.json()["field"]) == (400, name)
    assert SECRET not in response.text
    assert rest.service.requests == []


async def test_the_request_id_comes_back(client: httpx.AsyncClient) -> None:
    for body in (b"{", b'{"token_ids":[[1]]}'):
        assert (await post(client, body, x_request_id="order-7")).headers["x-request-id"] == "order-7"
    assert (await post(client, b"{", x_request_id="order-7")).json()["request_id"] == "order-7"
    made_up = await post(client, b"{", x_request_id="not plain")
    assert made_up.json()["request_id"] == made_up.headers["x-request-id"] != "not plain"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_request"),
        (b'{"text":"' + SECRET.encode(), 400, "malformed_request"),
        (b"[" * 1500 + b"]" * 1500, 400, "malformed_request"),
        (b'{"text":"\xff' + SECRET.encode() + b'"}', 400, "malformed_request"),
        (b'{"token_ids":[[NaN]]}', 400, "malformed_request"),
        (b'{"' + SECRET.encode() + b'":1,"text":"a"}', 400, "malformed_request"),
        (b'{"text":"a","model":{"' + SECRET.encode() + b'":1}}', 400, "malformed_request"),
        (b'{"token_ids":"' + SECRET.encode() + b'"}', 400, "malformed_request"),
        (b'{"token_ids":[[1],"' + SECRET.encode() + b'"]}', 400, "malformed_request"),
        (b'{"token_ids":[["' + SECRET.encode() + b'"]]}', 422, "invalid_input"),
        (b'{"token_ids":[[1.5]]}', 422, "invalid_input"),
        (b'{"token_ids":[[true]]}', 422, "invalid_input"),
        (b'{"token_ids":[[null]]}', 422, "invalid_input"),
        (b'{"token_ids":[[1180591620717411303424]]}', 422, "invalid_input"),
        (b'{"token_ids":[[9223372036854775808]]}', 422, "invalid_input"),
        (b'{"text":"a","outputs":["' + SECRET.encode() + b'"]}', 422, "invalid_input"),
        (b'{"text":"a","encoding_format":"' + SECRET.encode() + b'"}', 422, "invalid_input"),
    ],
)
async def test_bad_bodies_are_rejected_and_not_repeated(
    client: httpx.AsyncClient, rest: Rest, body: bytes, status: int, code: str
) -> None:
    response = await post(client, body)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert SECRET not in response.text + repr(rest.log.calls)
    assert rest.service.requests == []
    assert rest.counted(model="electra_demo", code=code) == 1


@given(st.binary() | json_values.map(orjson.dumps) | json_values.map(lambda ids: orjson.dumps({"token_ids": ids})))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
async def test_any_body_is_served_or_rejected(client: httpx.AsyncClient, body: bytes) -> None:
    response = await post(client, body)
    assert response.status_code in {200, 400, 422}
    assert len(response.content) < 500 or response.status_code == 200


@pytest.mark.parametrize(
    ("headers", "hints"),
    [
        ({"content-type": "text/plain"}, {"accept": "application/json", "accept-post": "application/json"}),
        ({"content-type": "application/json", "content-encoding": "br"}, {"accept-encoding": "identity"}),
    ],
)
async def test_bodies_that_are_not_plain_json_are_rejected_with_a_hint(
    client: httpx.AsyncClient, headers: dict[str, str], hints: dict[str, str]
) -> None:
    response = await client.post("/v1/encode", content=b'{"text":"a"}', headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert {name: value for name, value in response.headers.items() if name.startswith("accept")} == hints


async def test_a_body_without_a_content_type_is_json(client: httpx.AsyncClient) -> None:
    request = client.build_request("POST", "/v1/encode", content=b'{"text":"a"}')
    assert "content-type" not in request.headers
    assert (await client.send(request)).status_code == 200


@pytest.mark.parametrize(("extra", "status"), [(0, 200), (1, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_the_size_limit_from_both_sides(
    client: httpx.AsyncClient, extra: int, status: int, *, chunked: bool
) -> None:
    frame = b'{"text":""}'
    body = frame[:-2] + b"a" * (SETTINGS.max_body_bytes - len(frame) + extra) + frame[-2:]

    async def stream() -> Any:
        yield body

    response = await client.post("/v1/encode", content=stream() if chunked else body, headers=JSON)
    assert ("content-length" in response.request.headers) is not chunked
    assert response.status_code == status


async def test_a_large_body_is_decoded_like_a_small_one(rest: Rest) -> None:
    ids = list(range(LARGE_BODY_BYTES // 4))
    async with connect(rest.app(RestSettings())) as client:
        body = orjson.dumps({"token_ids": [ids], "outputs": ["cls_output"]})
        assert len(body) > LARGE_BODY_BYTES
        assert (await post(client, body)).status_code == 200
        assert (await post(client, body.replace(b"[0,", b"[0.5,"))).status_code == 422
    sent = rest.service.requests[0].input
    assert isinstance(sent, TokenInput)
    assert sent.token_ids[0].tolist() == ids


async def test_a_large_response_arrives_whole(client: httpx.AsyncClient, rest: Rest) -> None:
    rest.service.hidden_dim = 40_000
    content = (await client.post("/v1/encode", json={"token_ids": [[1, 2, 3, 4, 5, 6, 7]]})).json()
    assert np.array_equal(content["sequence_output"][0], np.repeat([[1], [2], [3], [4], [5], [6], [7]], 40_000, axis=1))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput("ids must be below 100; received a larger one", field="token_ids[0]"), 422),
        (errors.PayloadTooLarge("at most 4 sequences; received 5"), 413),
        (errors.ModelNotFound("the models are electra_demo"), 404),
        (errors.ModelNotReady("loading"), 503),
        (errors.ShuttingDown("draining"), 503),
        (errors.Overloaded("full", retry_after_s=2.5), 429),
        (errors.DeadlineExceeded("too late"), 504),
        (errors.EngineFailure("failed"), 500),
    ],
)
async def test_errors_of_the_service(
    client: httpx.AsyncClient, rest: Rest, error: errors.ServiceError, status: int
) -> None:
    rest.service.fail_with(error)
    response = await asyncio.create_task(client.post("/v1/encode", json=IDS))
    assert (response.status_code, response.json()["code"]) == (status, error.code)
    assert ("retry-after" in response.headers) is (status in {429, 503})
    assert rest.counted(model="electra_demo", code=error.code) == 1
    await settle()
    assert rest.in_flight == 0


async def test_an_unexpected_error_is_only_logged(client: httpx.AsyncClient, rest: Rest) -> None:
    rest.service.fail_with(RuntimeError(SECRET))
    response = await asyncio.create_task(client.post("/v1/encode", json=IDS, headers={"x-request-id": "order-7"}))
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert response.json()["detail"] == "the log has the rest under request id order-7"
    assert SECRET not in response.text
    assert "order-7" in repr(rest.log.calls)
    await settle()
    assert rest.in_flight == 0


async def test_the_log_has_one_line_without_the_body(client: httpx.AsyncClient, rest: Rest) -> None:
    await client.post("/v1/encode", json={"text": [SECRET, SECRET]}, headers={"x-request-id": "order-7"})
    (line,) = rest.log.calls
    noted = {key: line.kwargs[key] for key in ("method", "request_id", "model", "code", "sequences", "tokens")}
    assert noted == {
        "method": "POST /v1/encode",
        "request_id": "order-7",
        "model": "electra_demo",
        "code": "ok",
        "sequences": 2,
        "tokens": 2 * len(SECRET),
    }
    assert SECRET not in repr(line)


@pytest.mark.parametrize("model", ["electra_demo", "next", "unknown"])
async def test_requests_are_counted_under_names_from_the_settings(
    rest: Rest, client: httpx.AsyncClient, model: str
) -> None:
    await client.post("/v1/encode", json=IDS | {"model": model})
    assert rest.counted(model="" if model == "unknown" else model, code="ok") == 1
    assert rest.counted(model="unknown", code="ok") == 0


async def test_a_client_that_leaves_takes_its_request_along(rest: Rest) -> None:
    rest.service.gate.clear()
    wire = Wire(body_message(orjson.dumps(IDS)))
    serving = asyncio.ensure_future(wire.run(rest.app(), http_scope("/v1/encode", method="POST", headers=JSON)))
    await settle()
    assert (len(rest.service.requests), rest.in_flight) == (1, 1)
    wire.push(DISCONNECT)
    await asyncio.wait_for(serving, timeout=10)
    assert (rest.service.cancelled, rest.in_flight) == (1, 0)
    assert rest.counted(model="electra_demo", code="cancelled") == 1
    assert wire.status == 499
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_client_that_leaves_while_sending_is_counted_too(rest: Rest) -> None:
    wire = Wire(body_message(b'{"text":', more=True), DISCONNECT)
    await wire.run(rest.app(), http_scope("/v1/encode", method="POST", headers=JSON))
    assert rest.counted(model="electra_demo", code="cancelled") == 1
    assert rest.service.requests == []


async def test_a_slow_body_ends_the_connection(rest: Rest) -> None:
    wire = Wire(body_message(b'{"text":', more=True))
    app = rest.app(RestSettings(body_timeout_s=0.001))
    await wire.run(app, http_scope("/v1/encode", method="POST", headers=JSON))
    assert (wire.status, wire.headers["connection"]) == (408, "close")
    assert orjson.loads(wire.body)["code"] == "malformed_request"


async def test_one_request_does_not_wait_for_another(client: httpx.AsyncClient, rest: Rest) -> None:
    rest.service.gate.clear()
    held = asyncio.ensure_future(client.post("/v1/encode", json=IDS))
    await settle()
    assert (await post(client, b"{")).status_code == 400
    assert not held.done()
    rest.service.gate.set()
    assert (await held).status_code == 200
