"""The REST clients: the asynchronous one against the real application, the blocking one against a script."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable

import httpx
import numpy as np
import pytest

from electra_serve import errors
from electra_serve.api.rest.app import create_app
from electra_serve.client import AsyncElectraClient, ElectraClient, RetryPolicy, TransportError
from electra_serve.client.response import RankedDocument, ShapeCost
from electra_serve.observability.metrics import Metrics
from electra_serve.serving.encode import EncodeRequest
from electra_serve.serving.request_context import Priority
from electra_serve.settings.schema import RestSettings
from electra_serve.tensors import Output, TextInput, Truncation
from tests.fake_service import FakeService
from tests.fakes import transit_budget
from tests.unit.api.grpc.conftest import observer
from tests.unit.client.test_rest_codec import RESPONSE

URL = "http://electra.test"
ONCE = RetryPolicy(max_attempts=1)
QUICKLY = RetryPolicy(max_attempts=3, first_wait_s=0.0)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def client(service: FakeService) -> AsyncIterator[AsyncElectraClient]:
    metrics = Metrics("0")
    app = create_app(
        service,
        RestSettings(),
        metrics,
        observer(metrics, transport="rest"),
        max_sequences=256,
        budget=transit_budget(),
    )
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app))
    async with AsyncElectraClient(URL, http=http, retry=ONCE) as client:
        yield client


def scripted(handle: Callable[[httpx.Request], httpx.Response], retry: RetryPolicy = ONCE) -> ElectraClient:
    return ElectraClient(URL + "/", http=httpx.Client(transport=httpx.MockTransport(handle)), retry=retry)


async def test_the_application_and_the_client_understand_each_other(client: AsyncElectraClient) -> None:
    encoded = await client.encode(token_ids=[[1, 2], [3]], outputs=["sequence_output", "cls_output"])
    assert encoded.sequence_output is not None
    assert [row.tolist() for row in encoded.sequence_output] == [[[1.0] * 4, [2.0] * 4], [[3.0] * 4]]
    np.testing.assert_array_equal(encoded.cls_output, [[1.0] * 4, [3.0] * 4])
    assert (encoded.model, encoded.tokens, encoded.truncated) == ("tiny", 3, (False, False))
    assert len(encoded.request_id) == 32


async def test_what_the_caller_says_reaches_the_service(client: AsyncElectraClient, service: FakeService) -> None:
    await client.encode(
        text=["a", ("b", "c")], model="tiny", outputs=["mean_output"], truncate=True, timeout_s=30, priority="high"
    )
    [seen] = service.requests
    assert seen.input == TextInput(("a", ("b", "c")))
    assert (seen.model, seen.outputs, seen.truncation) == ("tiny", frozenset({Output.MEAN}), Truncation.LONGEST_FIRST)
    assert seen.context.priority is Priority.HIGH
    assert seen.context.timeout_s is not None
    assert 20 < seen.context.timeout_s <= 31


async def test_half_a_surrogate_pair_arrives_as_the_replacement_character(
    client: AsyncElectraClient, service: FakeService
) -> None:
    await client.encode(text=["cut \ude00 emoji", ("whole \U0001f600", "\ud83d")])
    assert service.requests[0].input == TextInput(("cut \ufffd emoji", ("whole \U0001f600", "\ufffd")))


async def test_the_application_s_models_are_read(client: AsyncElectraClient) -> None:
    tiny, big = await client.models()
    assert (tiny.name, tiny.state, tiny.weights) == ("tiny", "ready", "random")
    assert tiny.batch_shapes == (ShapeCost(1, 16, 1e-3), ShapeCost(4, 128, 1e-2))
    assert tiny.config is not None
    assert tiny.config["hidden_dim"] == 4
    assert tiny.limits is not None
    assert tiny.limits.max_sequences == 8
    assert (big.state, big.config, big.limits) == ("loading", None, None)


@pytest.mark.parametrize(
    "kind", [errors.InvalidInput, errors.PayloadTooLarge, errors.ModelNotReady, errors.Overloaded, errors.EngineFailure]
)
async def test_the_application_s_errors_come_back(
    client: AsyncElectraClient, service: FakeService, kind: type[errors.ServiceError]
) -> None:
    async def fail(_: EncodeRequest) -> None:
        raise kind("told", field="token_ids[3]", retry_after_s=0.25)

    service.before = fail
    with pytest.raises(kind) as caught:
        await client.encode(token_ids=[[1]])
    assert type(caught.value) is kind
    assert (caught.value.field, caught.value.retry_after_s) == ("token_ids[3]", 0.25)


def test_the_blocking_client_encodes() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=RESPONSE)

    with scripted(handle) as client:
        encoded = client.encode(token_ids=np.array([[1, 2], [3, 4]]), timeout_s=2.5)
    assert encoded.mean_output is not None
    assert encoded.mean_output.tolist() == [[1, 2], [3, 4]]
    assert str(seen[0].url) == f"{URL}/v1/encode"
    assert json.loads(seen[0].content)["token_ids"] == [[1, 2], [3, 4]]
    assert 2400 < int(seen[0].headers["x-request-timeout-ms"]) <= 2500


def test_the_blocking_client_lists_models() -> None:
    content = {"models": [{"name": "tiny", "preset": "p", "state": "loading"}]}
    with scripted(lambda _: httpx.Response(200, json=content)) as client:
        assert [model.name for model in client.models()] == ["tiny"]


def test_a_key_goes_with_every_request_and_none_by_itself() -> None:
    seen: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json=RESPONSE | {"models": []})

    http = httpx.Client(transport=httpx.MockTransport(handle))
    for key in (None, "shop-0123456789abcdef"):
        client = ElectraClient(URL, http=http, retry=ONCE, api_key=key)
        client.encode(token_ids=[[1]])
        client.models()
    assert seen == [None, None, *["Bearer shop-0123456789abcdef"] * 2]


@pytest.mark.parametrize(("failures", "succeeds"), [(2, True), (3, False)])
def test_what_passes_by_itself_is_tried_again(failures: int, succeeds: bool) -> None:
    problem = {"code": "overloaded", "detail": "full", "retry_after_s": 0.0}
    left = [httpx.Response(429, json=problem)] * failures + [httpx.Response(200, json=RESPONSE)]
    with scripted(lambda _: left.pop(0), QUICKLY) as client:
        if succeeds:
            assert client.encode(token_ids=[[1]]).tokens == 3
        else:
            with pytest.raises(errors.Overloaded):
                client.encode(token_ids=[[1]])
    assert len(left) == failures + 1 - 3


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (httpx.ConnectError("refused"), TransportError),
        (httpx.ConnectTimeout("no"), TransportError),
        (httpx.RemoteProtocolError("cut off"), TransportError),
        (httpx.ReadTimeout("no"), errors.DeadlineExceeded),
    ],
)
def test_failures_on_the_way_are_distinguished(raised: httpx.HTTPError, kind: type[errors.ElectraServeError]) -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        raise raised

    with scripted(handle) as client:
        for call in (lambda: client.encode(token_ids=[[1]]), client.models):
            with pytest.raises(kind):
                call()


def test_the_blocking_client_embeds_and_reranks() -> None:
    seen: list[str] = []
    vector = base64.b64encode(np.array([1, 0], "<f4").tobytes()).decode()
    content = {
        "model": "tiny",
        "data": [{"embedding": vector}],
        "results": [{"index": 0, "relevance_score": 0.5}],
        "usage": {"total_tokens": 3},
    }

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200, json=content, headers={"x-truncated-inputs": "0"})

    with scripted(handle) as client:
        assert client.embed("a").embeddings.tolist() == [[1, 0]]
        assert client.rerank("q", ["a"]).results == (RankedDocument(0, 0.5),)
    assert seen == ["/v1/embeddings", "/v1/rerank"]
