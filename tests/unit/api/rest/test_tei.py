"""Routes of Text Embeddings Inference, as its clients send and read them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import LogCapture

from electra_serve import errors
from electra_serve.api.rest.app import create_app
from electra_serve.api.rest.tei.model import model_name
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.observability.requests import RequestObserver
from electra_serve.serving.model_info import ModelState
from electra_serve.settings.schema import ApiSettings
from electra_serve.tensors import TextInput, TokenInput, Truncation
from tests.fake_service import READY, FakeService
from tests.fakes import transit_budget
from tests.unit.api.rest.conftest import SETTINGS, Rest, connect
from tests.unit.api.rest.models import READY_MODEL
from tests.unit.api.rest.strategies import json_values

COMPUTING: Final = ("/embed", "/embed_all", "/predict", "/similarity", "/tokenize", "/decode", "/")
BODIES: Final[dict[str, dict[str, Any]]] = {
    "/embed": {"inputs": "a"},
    "/embed_all": {"inputs": "a"},
    "/predict": {"inputs": "a"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/tokenize": {"inputs": "a"},
    "/decode": {"ids": [97]},
    "/": {"inputs": "a"},
}
CLASSIFIER: Final = replace(READY, text=True)
RERANKER: Final = replace(CLASSIFIER, labels=("relevant",))


def rest_of(*models: Any) -> Rest:
    return Rest(service=FakeService(*models))


async def test_texts_to_vectors(client: httpx.AsyncClient, rest: Rest) -> None:
    response = await client.post("/embed", json={"inputs": ["a", "bc"], "unknown": 1, "prompt_name": None})
    assert response.json() == [[97.0, 97.0], [98.5, 98.5]]
    assert (response.headers["x-compute-characters"], response.headers["x-compute-tokens"]) == ("3", "3")
    request = rest.service.embedded[0]
    assert (request.input, request.model, request.normalize) == (TextInput(("a", "bc")), "electra_demo", True)
    assert (request.truncation, request.dimensions, request.per_token) == (None, None, False)
    assert rest.counted(model="electra_demo", code="ok") == 1


async def test_one_text_has_a_list_too(client: httpx.AsyncClient, rest: Rest) -> None:
    body = {"inputs": "", "normalize": False, "dimensions": 2, "prompt_name": "query"}
    assert (await client.post("/embed", json=body)).json() == [[0.0, 0.0]]
    request = rest.service.embedded[0]
    assert (request.normalize, request.dimensions, request.prompt_name) == (False, 2, "query")


@pytest.mark.parametrize(("value", "rows"), [([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])])
async def test_ids_reach_the_service(
    client: httpx.AsyncClient, rest: Rest, value: object, rows: list[list[int]]
) -> None:
    response = await client.post("/embed", json={"inputs": value})
    found = rest.service.embedded[0].input
    assert isinstance(found, TokenInput)
    assert [row.tolist() for row in found.token_ids] == rows
    assert response.headers["x-compute-characters"] == str(sum(map(len, rows)))


@pytest.mark.parametrize(
    ("members", "truncation"),
    [
        ({}, None),
        ({"truncate": None, "truncation_direction": "Right"}, None),
        ({"truncation_direction": "LEFT"}, Truncation.LEFT),
        ({"truncate": True}, Truncation.RIGHT),
        ({"truncate": True, "truncation_direction": "Left"}, Truncation.LEFT),
        ({"truncate": False, "truncation_direction": "left"}, Truncation.NONE),
    ],
)
async def test_truncation(
    client: httpx.AsyncClient, rest: Rest, members: dict[str, object], truncation: Truncation | None
) -> None:
    await client.post("/embed", json={"inputs": "a", **members})
    await client.post("/predict", json={"inputs": "a", **members})
    assert rest.service.embedded[0].truncation is truncation
    assert rest.service.classified[0].truncation is (truncation or Truncation.LONGEST_FIRST)


async def test_a_vector_of_each_token(client: httpx.AsyncClient, rest: Rest) -> None:
    response = await client.post("/embed_all", json={"inputs": ["a", "bc"], "dimensions": "ignored"})
    assert response.json() == [[[97.0, 97.0]], [[98.0, 98.0], [99.0, 99.0]]]
    assert rest.service.embedded[0].per_token


async def test_similarity_is_of_unit_vectors(client: httpx.AsyncClient, rest: Rest) -> None:
    inputs = {"source_sentence": "a", "sentences": ["b", "c"]}
    body = {"inputs": inputs, "parameters": {"truncate": True, "prompt_name": "query"}}
    assert (await client.post("/similarity", json=body)).json() == [2 * 97.0 * 98.0, 2 * 97.0 * 99.0]
    request = rest.service.embedded[0]
    assert (request.input, request.normalize) == (TextInput(("a", "b", "c")), True)
    assert (request.truncation, request.prompt_name) == (Truncation.RIGHT, "query")


@pytest.mark.parametrize(
    ("inputs", "texts", "single"),
    [
        ("a", ("a",), True),
        (["a"], ("a",), True),
        (["a", "b"], (("a", "b"),), True),
        ([["a"]], ("a",), False),
        ([["a"], ["a", "b"]], ("a", ("a", "b")), False),
    ],
)
async def test_forms_of_inputs_to_classify(
    client: httpx.AsyncClient, rest: Rest, inputs: object, texts: object, single: bool
) -> None:
    body = (await client.post("/predict", json={"inputs": inputs, "raw_scores": True})).json()
    request = rest.service.classified[0]
    assert (request.input, request.model) == (TextInput(texts), "electra_demo")  # type: ignore[arg-type]
    labels = [{"score": 97.0, "label": "bad"}, {"score": 97.0, "label": "good"}]
    assert body == (labels if single else [labels] * len(texts))  # type: ignore[arg-type]


async def test_scores_of_several_labels_are_a_softmax(client: httpx.AsyncClient, rest: Rest) -> None:
    found = (await client.post("/predict", json={"inputs": "a"})).json()
    assert rest.service.classified[0].options.raw_scores
    assert [label["score"] for label in found] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("inputs", "special", "expected"),
    [
        ("é!", True, [(2, "[CLS]", True, None, None), (233, "é", False, 0, 2), (33, "!", False, 2, 3)]),
        (["a"], False, [(97, "a", False, 0, 1)]),
        (["a"], None, [(2, "[CLS]", True, None, None), (97, "a", False, 0, 1)]),
    ],
)
async def test_tokens_have_places_in_bytes(
    client: httpx.AsyncClient, inputs: object, special: bool | None, expected: list[tuple[object, ...]]
) -> None:
    response = await client.post("/tokenize", json={"inputs": inputs, "add_special_tokens": special})
    names = ("id", "text", "special", "start", "stop")
    assert response.json() == [[dict(zip(names, token, strict=True)) for token in expected]]


async def test_many_tokens_are_rendered_in_pieces(client: httpx.AsyncClient) -> None:
    text = "ab" * 1500
    (found,) = (await client.post("/tokenize", json={"inputs": text, "add_special_tokens": False})).json()
    assert "".join(token["text"] for token in found) == text
    assert [token["start"] for token in found] == list(range(3000))


@pytest.mark.parametrize(("ids", "texts"), [([97, 98], ["ab"]), ([[97], [98, 99]], ["a", "bc"]), ([[]], [""])])
async def test_ids_to_texts(client: httpx.AsyncClient, rest: Rest, ids: object, texts: list[str]) -> None:
    response = await client.post("/decode", json={"ids": ids, "skip_special_tokens": False})
    assert response.json() == texts
    assert rest.service.detokenized[0].skip_special_tokens is False


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (READY_MODEL, {"embedding": {"pooling": "cls"}}),
        (CLASSIFIER, {"classifier": {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}}),
        (RERANKER, {"reranker": {"id2label": {"0": "relevant"}, "label2id": {"relevant": 0}}}),
        (replace(READY, head="token_classification"), {"embedding": {"pooling": "cls"}}),
    ],
)
async def test_the_model_is_described(model: Any, kind: object) -> None:
    model = replace(model, embedding=READY.embedding)
    rest = rest_of(model)
    async with connect(rest.app()) as client:
        found = (await client.get("/info")).json()
    assert found["model_type"] == kind
    assert (found["model_id"], found["model_sha"], found["model_dtype"]) == (model.preset, model.revision, "float32")
    assert (found["served_model_name"], found["max_client_batch_size"]) == (model.name, ApiSettings().max_inputs)
    assert (found["max_input_length"], found["max_batch_tokens"]) == (model.limits.max_sequence_length, 4096)
    assert found["auto_truncate"] is True
    assert rest.counted(model=model.name, code="ok") == 1


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_health(client: httpx.AsyncClient, rest: Rest, ready: bool, status: int) -> None:
    rest.service.ready = ready
    response = await client.get("/health")
    assert response.status_code == status
    assert response.content == b"" if ready else response.json()["error_type"] == "Unhealthy"


@pytest.mark.parametrize(
    ("model", "called", "body"),
    [
        (READY_MODEL, "embedded", {"inputs": "a"}),
        (CLASSIFIER, "classified", {"inputs": "a"}),
        (RERANKER, "reranked", {"query": "a", "texts": ["a", "b"]}),
    ],
)
async def test_the_root_is_the_route_of_the_models_kind(model: Any, called: str, body: object) -> None:
    rest = rest_of(model)
    async with connect(rest.app()) as client:
        response = await client.post("/", json=body)
        assert (await client.post("/", json={})).json()["error_type"] == "Validation"
    assert response.status_code == 200
    names = ("embedded", "classified", "reranked")
    assert [name for name in names if getattr(rest.service, name)] == [called]


async def test_without_a_route_for_them_rerankers_are_classifiers() -> None:
    rest = rest_of(RERANKER)
    observer = RequestObserver("rest", rest.metrics, rest.log)
    apis = ApiSettings(rerank=False)
    app = create_app(
        rest.service, SETTINGS, rest.metrics, observer, max_sequences=8, budget=transit_budget(), apis=apis
    )
    async with connect(app) as client:
        assert (await client.post("/", json={"inputs": "a"})).status_code == 200
    assert len(rest.service.classified) == 1


async def test_the_model_is_that_of_the_settings() -> None:
    rest = rest_of(READY_MODEL, CLASSIFIER)
    observer = RequestObserver("rest", rest.metrics, rest.log)
    apis = ApiSettings(tei_model=CLASSIFIER.name)
    app = create_app(
        rest.service, SETTINGS, rest.metrics, observer, max_sequences=8, budget=transit_budget(), apis=apis
    )
    async with connect(app) as client:
        await client.post("/", json={"inputs": "a"})
        assert (await client.get("/info")).json()["served_model_name"] == CLASSIFIER.name
    assert rest.service.classified[0].model == CLASSIFIER.name


class Several(FakeService):
    """A service of several models, none of which is implied."""

    def label(self, model: str | None) -> str:
        return "" if model is None else super().label(model)


async def test_several_models_need_the_setting() -> None:
    service = Several(READY_MODEL, CLASSIFIER)
    assert model_name(service, "tiny") == "tiny"
    async with connect(Rest(service=service).app()) as client:
        for path in COMPUTING:
            response = await client.post(path, json=BODIES[path])
            assert (response.status_code, response.json()) == (
                424,
                {
                    "error": "several models are served: set apis.tei_model to one of electra_demo, tiny",
                    "error_type": "Backend",
                },
            )
        assert (await client.get("/info")).status_code == 424


async def test_a_model_that_loads_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = rest_of(replace(READY_MODEL, state=ModelState.LOADING))

    def truncates(_: str | None) -> bool:
        raise errors.ModelNotReady("model electra_demo is loading", field="model")

    monkeypatch.setattr(rest.service, "truncates", truncates)
    async with connect(rest.app()) as client:
        response = await client.get("/info")
    assert (response.status_code, response.json()["error_type"]) == (503, "Unhealthy")


async def test_switched_off() -> None:
    rest = Rest()
    observer = RequestObserver("rest", rest.metrics, rest.log)
    app = create_app(
        rest.service,
        SETTINGS.model_copy(update={"playground": False}),
        rest.metrics,
        observer,
        max_sequences=8,
        budget=transit_budget(),
        apis=ApiSettings(tei=False),
    )
    async with connect(app) as client:
        for path in COMPUTING:
            assert (await client.post(path, json=BODIES[path])).status_code == 404
        assert (await client.get("/health")).status_code == 404
    assert not {"TeiEmbedBody", "TeiInfo"} & app.openapi()["components"]["schemas"].keys()


async def test_keys_are_asked_for_except_by_the_probe(rest: Rest, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("shop-0123456789abcdef")
    authenticator = Authenticator(KeyRing(tmp_path / "keys", structlog.wrap_logger(None, [LogCapture()])))
    async with connect(rest.app(authenticator=authenticator)) as client:
        for path in COMPUTING:
            response = await client.post(path, json=BODIES[path])
            assert (response.status_code, response.json().keys()) == (401, {"error", "error_type"})
            known = await client.post(path, json=BODIES[path], headers={"x-api-key": "shop-0123456789abcdef"})
            assert known.status_code == 200
        assert (await client.get("/info")).status_code == 401
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    ("path", "members", "message"),
    [
        ("/embed", {}, "inputs is required"),
        ("/embed", {"inputs": None}, "inputs is required"),
        ("/embed", {"inputs": 1}, "inputs must be a string, or a list of strings"),
        ("/embed", {"inputs": ["a", 1]}, "inputs must be strings, ids, or lists of ids"),
        ("/embed", {"inputs": ["a", [1]]}, "inputs must be strings, ids, or lists of ids"),
        ("/embed", {"inputs": "a", "normalize": 1}, "normalize must be true or false"),
        ("/embed", {"inputs": "a", "dimensions": 0}, "dimensions must be at least 1"),
        ("/embed", {"inputs": "a", "truncate": "yes"}, "truncate must be true or false"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, "truncation_direction must be left or right"),
        ("/embed", {"inputs": "a", "truncation_direction": "right-hand"}, "truncation_direction must be left or right"),
        ("/predict", {"inputs": ["a", "b", "c"]}, "each entry of inputs must be a string or a pair of strings"),
        ("/predict", {"inputs": [["a"], []]}, "each entry of inputs[1] must be a string or a pair of strings"),
        ("/predict", {"inputs": [[["a"]]]}, "each entry of inputs[0] must be a string or a pair of strings"),
        ("/similarity", {"inputs": "a"}, "inputs must be an object"),
        ("/similarity", {"inputs": {"sentences": ["a"]}}, "source_sentence is required"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": "b"}}, "sentences must be a list of strings"),
        ("/similarity", {**BODIES["/similarity"], "parameters": []}, "parameters must be an object"),
        ("/tokenize", {"inputs": [["a", "b"]]}, "inputs must be a list of strings"),
        ("/decode", {"ids": "a"}, "ids must be a list of integers"),
        ("/decode", {"ids": [1, [2]]}, "ids must hold integers only"),
    ],
)
async def test_bad_requests(client: httpx.AsyncClient, path: str, members: dict[str, object], message: str) -> None:
    response = await client.post(path, json=members)
    error = response.json()
    assert (response.status_code, error["error_type"]) == (422, "Validation")
    assert error["error"].startswith(message)


@pytest.mark.parametrize(
    ("path", "members"),
    [
        ("/embed", {"inputs": []}),
        ("/predict", {"inputs": []}),
        ("/tokenize", {"inputs": []}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}),
        ("/decode", {"ids": []}),
    ],
)
async def test_no_inputs_are_an_error_of_their_own(client: httpx.AsyncClient, path: str, members: object) -> None:
    response = await client.post(path, json=members)
    assert (response.status_code, response.json()["error_type"]) == (400, "Empty")


@pytest.mark.parametrize("path", COMPUTING)
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.InvalidInput("no"), 422, "Validation"),
        (errors.InvalidInput("no", field="model"), 424, "Backend"),
        (errors.PayloadTooLarge("no"), 413, "Validation"),
        (errors.Overloaded("full", retry_after_s=1.5), 429, "Overloaded"),
        (errors.ModelNotReady("no"), 503, "Unhealthy"),
        (errors.ShuttingDown("no"), 503, "Unhealthy"),
        (errors.DeadlineExceeded("late"), 504, "Backend"),
        (errors.EngineFailure("no"), 424, "Backend"),
    ],
)
async def test_errors(
    client: httpx.AsyncClient, rest: Rest, path: str, error: errors.ServiceError, status: int, kind: str
) -> None:
    rest.service.fail_with(error)
    response = await client.post(path, json=BODIES[path])
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error", "error_type"}
    assert (response.status_code, response.json()["error_type"]) == (status, kind)
    assert ("retry-after" in response.headers) == error.retryable


@pytest.mark.parametrize(("path", "member"), [("/embed", "inputs"), ("/decode", "ids")])
async def test_the_input_at_fault_is_named(client: httpx.AsyncClient, rest: Rest, path: str, member: str) -> None:
    rest.service.fail_with(errors.InvalidInput("too long", field="text[3]"))
    response = await client.post(path, json=BODIES[path])
    assert response.json()["error"] == f"{member}[3]: too long"


@pytest.mark.parametrize("path", COMPUTING)
async def test_other_methods_have_the_form_too(client: httpx.AsyncClient, path: str) -> None:
    response = await client.put(path)
    allowed = "GET, HEAD, POST" if path == "/" else "POST"
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.json().keys() == {"error", "error_type"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": ["a"] * 2049}),
        ("/predict", {"inputs": [["a"]] * 2049}),
        ("/tokenize", {"inputs": ["a"] * 2049}),
        ("/decode", {"ids": [[1]] * 2049}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"] * 2049}}),
    ],
)
async def test_more_inputs_than_allowed_are_rejected(client: httpx.AsyncClient, path: str, body: object) -> None:
    response = await client.post(path, json=body)
    assert (response.status_code, response.json()["error_type"]) == (413, "Validation")


async def test_large_responses_are_rendered_in_chunks(client: httpx.AsyncClient) -> None:
    rows = (await client.post("/embed_all", json={"inputs": ["ab" * 6000]})).json()
    assert np.array(rows).shape == (1, 12_000, 2)


member_values = json_values | st.lists(st.text(max_size=3) | st.lists(st.integers(0, 9), max_size=3), max_size=3)


@pytest.mark.parametrize("path", COMPUTING)
@given(
    json_values
    | st.fixed_dictionaries(
        {},
        optional={
            "inputs": member_values
            | st.fixed_dictionaries({"source_sentence": st.text() | json_values, "sentences": member_values}),
            "ids": member_values,
            "parameters": json_values,
            "truncate": st.booleans() | json_values,
            "truncation_direction": st.sampled_from(["left", "RIGHT", "up"]) | json_values,
            "normalize": st.booleans() | json_values,
        },
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_body_is_a_fault(client: httpx.AsyncClient, path: str, body: Any) -> None:
    content = json.dumps(body)  # NaN and infinities included
    response = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code in {200, 400, 413, 422}
    if response.status_code != 200:
        assert response.json().keys() == {"error", "error_type"}
        assert response.json()["error_type"] in {"Empty", "Validation"}
