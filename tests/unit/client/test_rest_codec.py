"""The JSON of the REST API, from a client's side."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import httpx
import numpy as np
import pytest

from electra_serve import errors
from electra_serve.client import rest_codec
from electra_serve.client.request import ClassifyOptions, EmbedQuery, RerankQuery
from electra_serve.client.response import Label, RankedDocument, RequestLimits, RerankResponse, ShapeCost, Span
from electra_serve.errors import TransportError
from electra_serve.tensors import Aggregation
from tests.unit.client.test_request import query


def packed(values: object) -> dict[str, object]:
    """An array as the service writes it."""
    array = np.array(values, "<f4")
    return {"dtype": "float32", "shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


RESPONSE = {
    "model": "tiny",
    "sequence_output": [packed([[1, 2], [3, 4]]), packed([[5, 6]])],
    "mean_output": [packed([1, 2]), packed([3, 4])],
    "logits": [packed([7]), packed([8])],
    "token_logits": [packed([[1], [2]]), packed([[3]])],
    "usage": {"sequences": 2, "tokens": 3},
    "truncated": [False, True],
}


def test_a_body_holds_what_was_said_and_nothing_else() -> None:
    assert json.loads(rest_codec.body(query(token_ids=[[1, 2]]))) == {
        "encoding_format": "base64",
        "truncate": False,
        "token_ids": [[1, 2]],
    }
    everything = query(
        token_ids=[[1]], segment_ids=[[0]], padding_mask=[[1]], model="m", outputs=["mean_output"], truncate=True
    )
    assert json.loads(rest_codec.body(everything)) == {
        "encoding_format": "base64",
        "truncate": True,
        "token_ids": [[1]],
        "segment_ids": [[0]],
        "padding_mask": [[1]],
        "model": "m",
        "outputs": ["mean_output"],
    }
    assert json.loads(rest_codec.body(query(text="a", truncation="only_second")))["truncation"] == "only_second"
    assert json.loads(rest_codec.body(query(text=["a", ("b", "c")])))["text"] == ["a", ["b", "c"]]


@pytest.mark.parametrize(("timeout_s", "header"), [(0.25, "250"), (1e-9, "1"), (1e9, "999999999")])
def test_headers_have_the_urgency(timeout_s: float, header: str) -> None:
    assert rest_codec.headers(query(text="a", priority="low"), timeout_s) == {
        "content-type": "application/json",
        "x-priority": "low",
        "x-request-timeout-ms": header,
    }


def test_a_response_becomes_arrays() -> None:
    encoded = rest_codec.to_response(httpx.Response(200, json=RESPONSE, headers={"x-request-id": "r1"}))
    assert encoded.sequence_output is not None
    assert [row.tolist() for row in encoded.sequence_output] == [[[1, 2], [3, 4]], [[5, 6]]]
    assert encoded.mean_output is not None
    assert encoded.mean_output.tolist() == [[1, 2], [3, 4]]
    assert encoded.mean_output.dtype == np.float32
    assert (encoded.pooled_output, encoded.cls_output) == (None, None)
    assert encoded.logits is not None
    assert encoded.logits.tolist() == [[7], [8]]
    assert encoded.token_logits is not None
    assert [row.tolist() for row in encoded.token_logits] == [[[1], [2]], [[3]]]
    assert (encoded.model, encoded.tokens, encoded.truncated, encoded.request_id) == ("tiny", 3, (False, True), "r1")


def test_arrays_are_read_only_over_rest_as_over_grpc() -> None:
    encoded = rest_codec.to_response(httpx.Response(200, json=RESPONSE))
    assert encoded.sequence_output is not None
    assert encoded.mean_output is not None
    assert not encoded.sequence_output[0].flags.writeable
    assert not encoded.mean_output.flags.writeable


BROKEN = {
    "not JSON": httpx.Response(200, content=b"<html>"),
    "not UTF-8": httpx.Response(200, content=b'"\xff"'),
    "a list": httpx.Response(200, json=[]),
    "a field missing": httpx.Response(200, json={"model": "m"}),
    "bytes short of their shape": httpx.Response(200, json=RESPONSE | {"mean_output": [packed([1]) | {"shape": [2]}]}),
    "no base64": httpx.Response(200, json=RESPONSE | {"mean_output": [packed([1]) | {"data": "*"}]}),
    "another type": httpx.Response(200, json=RESPONSE | {"mean_output": [packed([1]) | {"dtype": "float64"}]}),
    "a proxy's error": httpx.Response(502, content=b"<html>bad gateway</html>"),
    "a proxy's JSON": httpx.Response(503, json=["no"]),
}


@pytest.mark.parametrize("response", BROKEN.values(), ids=BROKEN)
def test_another_server_s_response_is_a_transport_error(response: httpx.Response) -> None:
    with pytest.raises(TransportError, match=f"got status {response.status_code}"):
        rest_codec.to_response(response)


def test_a_problem_becomes_the_error_it_stands_for() -> None:
    problem = {"code": "overloaded", "detail": "full", "status": 429, "field": "token_ids", "retry_after_s": 0.25}
    error = rest_codec.to_error(httpx.Response(429, json=problem))
    assert isinstance(error, errors.Overloaded)
    assert (error.message, error.field, error.retry_after_s) == ("full", "token_ids", 0.25)


def test_models_are_read_and_what_is_new_is_left_out() -> None:
    full = {
        "name": "tiny",
        "preset": "p",
        "state": "ready",
        "config": {"hidden_dim": 4},
        "limits": {"max_sequences": 8, "max_sequence_length": 512, "newer": 1},
        "batch_shapes": [{"rows": 1, "length": 16, "seconds": 0.5}],
        "batch_tokens": 4096,
        "aliases": ["other"],
        "head": "token_classification",
        "labels": ["O", "B"],
        "activation": "softmax",
        "newer": True,
    }
    loading = {"name": "big", "preset": "p", "state": "loading", "limits": None, "batch_shapes": None}
    tiny, big = rest_codec.to_models(httpx.Response(200, json={"models": [full, loading]}))
    assert (tiny.name, tiny.state, tiny.config) == ("tiny", "ready", {"hidden_dim": 4})
    assert (tiny.limits, tiny.batch_tokens) == (RequestLimits(8, 512), 4096)
    assert tiny.batch_shapes == (ShapeCost(1, 16, 0.5),)
    assert (tiny.aliases, big.aliases) == (("other",), ())
    assert (tiny.head, tiny.labels, tiny.activation) == ("token_classification", ("O", "B"), "softmax")
    assert (big.head, big.labels, big.activation) == (None, (), None)
    assert (big.state, big.limits, big.batch_shapes, big.parameters) == ("loading", None, (), None)
    with pytest.raises(TransportError):
        rest_codec.to_models(httpx.Response(200, json={"models": [{}]}))


CLASSIFIED = {
    "model": "tiny",
    "head": "token_classification",
    "spans": [[{"label": "a", "score": 0.5, "start": 0, "end": 1, "text": "x", "part": 0, "later": 1}], []],
    "usage": {"sequences": 2, "tokens": 3},
    "truncated": [False, True],
}


def test_a_body_of_a_classification_holds_what_was_said() -> None:
    options = ClassifyOptions(top_k=1, aggregation=Aggregation.FIRST, stride=0)
    assert json.loads(rest_codec.classify_body(query(text=[("a", "b")], model="m"), options)) == {
        "model": "m",
        "text": [["a", "b"]],
        "truncate": False,
        "top_k": 1,
        "raw_scores": False,
        "aggregation": "first",
        "stride": 0,
    }


def test_spans_come_back_without_what_is_not_known() -> None:
    response = rest_codec.to_classify_response(httpx.Response(200, json=CLASSIFIED, headers={"x-request-id": "r1"}))
    assert response.spans == ((Span("a", 0.5, 0, 1, "x", 0),), ())
    assert (response.model, response.head, response.tokens, response.request_id) == (
        "tiny",
        "token_classification",
        3,
        "r1",
    )
    assert (response.truncated, response.labels, response.answers) == ((False, True), (), ())


def test_labels_and_answer_spans_come_back() -> None:
    content = CLASSIFIED | {"spans": [], "labels": [[{"label": "a", "score": 1}]], "answers": [[{"score": 2}]]}
    response = rest_codec.to_classify_response(httpx.Response(200, json=content))
    assert response.labels == ((Label("a", 1),),)
    assert response.answers == ((Span("", 2),),)


@pytest.mark.parametrize("changed", [{"head": None, "usage": 1}, {"spans": [[1]]}, {"labels": [[{"score": 1}]]}])
def test_a_foreign_classification_is_no_response(changed: dict[str, object]) -> None:
    with pytest.raises(TransportError):
        rest_codec.to_classify_response(httpx.Response(200, json=CLASSIFIED | changed))


def test_a_rejected_classification_raises_the_services_error() -> None:
    problem = {"code": "invalid_input", "detail": "no", "field": "top_k"}
    with pytest.raises(errors.InvalidInput) as caught:
        rest_codec.to_classify_response(httpx.Response(422, json=problem))
    assert caught.value.field == "top_k"


EMBED = EmbedQuery.of(["a", "b"], model="m", prompt_name=None, input_type="query", dimensions=2, priority="high")
RERANK = RerankQuery.of("q", ("a", "b"), model=None, top_n=1, raw_scores=False, priority="low")
TRUNCATED = {"x-truncated-inputs": "1", "x-request-id": "r1"}
EMBEDDED = {
    "object": "list",
    "data": [{"index": index, "embedding": packed([index, 1])["data"]} for index in range(2)],
    "model": "tiny",
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}
RERANKED = {
    "model": "tiny",
    "results": [{"index": 1, "relevance_score": 0.75, "document": {"text": "new"}}],
    "usage": {"total_tokens": 7},
}


def test_bodies_of_embedding_and_reranking() -> None:
    assert json.loads(rest_codec.embed_body(EMBED)) == {
        "input": ["a", "b"],
        "model": "m",
        "input_type": "query",
        "dimensions": 2,
        "encoding_format": "base64",
    }
    assert json.loads(rest_codec.rerank_body(RERANK)) == {
        "query": "q",
        "documents": ["a", "b"],
        "top_n": 1,
        "raw_scores": False,
    }
    assert (rest_codec.headers(EMBED, 1)["x-priority"], rest_codec.headers(RERANK, 1)["x-priority"]) == ("high", "low")


def test_vectors_come_back() -> None:
    response = rest_codec.to_embed_response(httpx.Response(200, json=EMBEDDED, headers=TRUNCATED))
    assert response.embeddings.tolist() == [[0, 1], [1, 1]]
    assert not response.embeddings.flags.writeable
    assert (response.model, response.tokens, response.truncated, response.request_id) == ("tiny", 7, 1, "r1")


def test_ranked_documents_come_back() -> None:
    response = rest_codec.to_rerank_response(httpx.Response(200, json=RERANKED, headers=TRUNCATED))
    assert response == RerankResponse("tiny", (RankedDocument(1, 0.75),), 7, 1, "r1")


@pytest.mark.parametrize("changed", [{"data": []}, {"data": [{"embedding": [1.0]}]}, {"data": 1}, {"usage": {}}])
def test_foreign_vectors_are_no_response(changed: dict[str, object]) -> None:
    with pytest.raises(TransportError):
        rest_codec.to_embed_response(httpx.Response(200, json=EMBEDDED | changed, headers=TRUNCATED))


@pytest.mark.parametrize(
    ("changed", "headers"), [({"results": [{}]}, TRUNCATED), ({"results": 1}, TRUNCATED), ({}, {}), ({"model": 1}, {})]
)
def test_a_foreign_ranking_is_no_response(changed: dict[str, object], headers: dict[str, str]) -> None:
    with pytest.raises(TransportError):
        rest_codec.to_rerank_response(httpx.Response(200, json=RERANKED | changed, headers=headers))


@pytest.mark.parametrize("read", [rest_codec.to_embed_response, rest_codec.to_rerank_response])
def test_errors_of_these_routes_are_read(read: Callable[[httpx.Response], object]) -> None:
    failure = {"error": {"message": "full", "type": "rate_limit_error", "param": None, "code": "overloaded"}}
    with pytest.raises(errors.Overloaded, match="full") as caught:
        read(httpx.Response(429, json=failure, headers={"retry-after-ms": "250"}))
    assert (caught.value.field, caught.value.retry_after_s) == (None, 0.25)
    failure["error"] |= {"param": "input", "code": "invalid_input"}
    with pytest.raises(errors.InvalidInput) as invalid:
        read(httpx.Response(400, json=failure))
    assert (invalid.value.field, invalid.value.retry_after_s) == ("input", None)


@pytest.mark.parametrize("content", [{"error": "text"}, {"error": {}}, {"error": {"code": [], "message": "m"}}])
def test_a_foreign_error_is_a_transport_error(content: object) -> None:
    assert isinstance(rest_codec.to_error(httpx.Response(400, json=content)), TransportError)
