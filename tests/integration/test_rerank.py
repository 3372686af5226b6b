"""Embedding and reranking by the real process, for the typed clients and for bodies of other APIs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import httpx
import numpy as np
import pytest

from electra_serve import ElectraClient, GrpcElectraClient
from electra_serve.errors import InvalidInput, Overloaded
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.heads import HeadConfig
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.contract.heads import HEADS, preset_with
from tests.integration.process import ServiceProcess, start
from tests.waiting import wait_until

QUERY: Final = "Who was late for the trial?"
DOCUMENTS: Final = [
    "The Rabbit was late.",
    "Alice fell asleep.",
    "",
    "Où est 東京 🎉?",
    " ".join(["The Queen was in a hurry, and the Duchess was not."] * 100),
    "The Hatter came with a teacup in one hand and a piece of bread and butter in the other.",
]
RANKER: Final = HeadConfig("sequence_classification", ("relevant",), "none")
Client = ElectraClient | GrpcElectraClient


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("rerank")
    preset_with(RANKER, folder / "ranker")
    preset_with(HEADS["sequences, ELECTRA's"], folder / "sentiment")
    flags = [f"--models={folder / 'ranker'}", f"--models={folder / 'sentiment'}", f"--models={DEMO_ID}"]
    with start(folder, *flags, "--apis.tei_model=ranker", "--log.format=json") as process:
        process.wait_ready()
        yield process


@pytest.fixture(params=["rest", "grpc"])
def client(request: pytest.FixtureRequest, served: ServiceProcess) -> Iterator[Client]:
    made = ElectraClient(served.url) if request.param == "rest" else GrpcElectraClient(served.target)
    with made as opened:
        yield opened


@pytest.fixture(scope="module")
def logits(served: ServiceProcess) -> list[float]:
    """Logit of each document, by `encode`."""
    with GrpcElectraClient(served.target) as client:
        pairs = [(QUERY, document) for document in DOCUMENTS]
        encoded = client.encode(text=pairs, model="ranker", outputs=["logits"], truncation="only_second")
    assert encoded.logits is not None
    return [float(logit) for logit in encoded.logits[:, 0]]


def best_first(logits: list[float]) -> list[int]:
    return sorted(range(len(logits)), key=lambda index: -logits[index])


def test_scores_follow_the_logits(client: Client, logits: list[float]) -> None:
    response = client.rerank(QUERY, DOCUMENTS, model="ranker")
    assert [document.index for document in response.results] == best_first(logits)
    sigmoid = [1 / (1 + np.exp(-logits[document.index])) for document in response.results]
    assert [document.score for document in response.results] == pytest.approx(sigmoid, abs=1e-5)
    assert response.truncated == 1
    raw = client.rerank(QUERY, DOCUMENTS, model="ranker", raw_scores=True, top_n=2)
    assert [document.score for document in raw.results] == pytest.approx(sorted(logits)[:-3:-1], abs=1e-5)


def test_a_thousand_documents_are_scored_as_a_few(client: Client, logits: list[float]) -> None:
    short = [index for index in range(len(DOCUMENTS)) if len(DOCUMENTS[index]) < 100]
    documents = [DOCUMENTS[short[number % len(short)]] for number in range(1000)]
    response = client.rerank(QUERY, documents, model="ranker", raw_scores=True)
    assert sorted(document.index for document in response.results) == list(range(1000))
    for document in response.results:
        assert document.score == pytest.approx(logits[short[document.index % len(short)]], abs=1e-4)
    scores = [document.score for document in response.results]
    assert scores == sorted(scores, reverse=True)


def test_vectors_are_those_of_encode(client: Client) -> None:
    texts = [text for text in DOCUMENTS if len(text) < 100]
    response = client.embed(texts * 20, model=DEMO_ID)
    encoded = client.encode(text=texts, model=DEMO_ID, outputs=["embedding"]).embedding
    assert encoded is not None
    units = encoded / np.linalg.norm(encoded, axis=1, keepdims=True)
    np.testing.assert_allclose(response.embeddings, np.tile(units, (20, 1)), atol=1e-5)


def test_a_model_that_is_no_cross_encoder_names_those_that_are(client: Client) -> None:
    for model in (DEMO_ID, "sentiment"):
        with pytest.raises(InvalidInput, match=r"served cross-encoders are ranker$") as caught:
            client.rerank(QUERY, DOCUMENTS, model=model)
        assert caught.value.field == "model"


def test_a_query_that_leaves_no_room_is_named(client: Client) -> None:
    with pytest.raises(InvalidInput, match="query must have fewer than 512 ids") as caught:
        client.rerank("late " * 600, DOCUMENTS, model="ranker")
    assert caught.value.field == "query"


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_bodies_of_other_apis(served: ServiceProcess, logits: list[float], path: str) -> None:
    body: dict[str, Any] = {"model": "ranker", "query": QUERY, "documents": [{"text": text} for text in DOCUMENTS]}
    answer = httpx.post(f"{served.url}{path}", json={**body, "top_n": 3, "return_documents": True}).json()
    order = best_first(logits)[:3]
    assert [item["index"] for item in answer["results"]] == order
    assert [item["document"]["text"] for item in answer["results"]] == [DOCUMENTS[index] for index in order]


def test_texts_get_a_bare_list_of_the_default_model(served: ServiceProcess, logits: list[float]) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": True, "truncation_direction": "Right"}
    items = httpx.post(f"{served.url}/rerank", json=body).json()
    assert [item["index"] for item in items] == best_first(logits)
    assert httpx.post(served.url, json=body).json() == items
    other = httpx.post(f"{served.url}/rerank", json={**body, "model": "sentiment"})
    assert (other.status_code, other.json()["error_type"]) == (424, "Backend")


def test_scores_are_in_the_order_of_the_request(served: ServiceProcess, logits: list[float]) -> None:
    body = {"model": "ranker", "text_1": QUERY, "text_2": DOCUMENTS, "raw_scores": True}
    answer = httpx.post(f"{served.url}/score", json=body).json()
    assert [item["score"] for item in answer["data"]] == pytest.approx(logits, abs=1e-5)


def test_a_large_request_does_not_keep_others_out(served: ServiceProcess) -> None:
    def rerank(_: int) -> int:
        with ElectraClient(served.url, timeout_s=60) as client:
            return len(client.rerank(QUERY, DOCUMENTS[:2] * 500, model="ranker").results)

    def encode(_: int) -> bool:
        with GrpcElectraClient(served.target, timeout_s=60) as client:
            try:
                return client.encode(text="a", model="ranker", outputs=["logits"]).logits is not None
            except Overloaded:
                return False

    with ThreadPoolExecutor(6) as pool:
        large, small = pool.map(rerank, range(3)), pool.map(encode, range(30))
        assert list(large) == [1000] * 3
        assert all(small)


def test_a_message_over_the_limit_is_rejected(served: ServiceProcess) -> None:
    with grpc.insecure_channel(served.target) as channel:
        request = pb.RerankRequest(query="a", documents=["b" * 10_000] * 500)
        with pytest.raises(grpc.RpcError) as caught:
            EncoderServiceStub(channel).Rerank(request, timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_requests_are_counted_and_logged(served: ServiceProcess) -> None:
    with GrpcElectraClient(served.target) as client:
        ids = {client.rerank("a", ["b"], model="ranker").request_id: "Rerank"}
        ids[client.embed("a", model="ranker").request_id] = "Embed"
    with ElectraClient(served.url) as rest:
        ids[rest.rerank("a", ["b"], model="ranker").request_id] = "POST /v1/rerank"
        ids[rest.embed("a", model="ranker").request_id] = "POST /v1/embeddings"
    wait_until(lambda: all(name in served.stderr for name in ids))
    lines = {event.get("request_id"): event for event in served.events if event["event"] == "request"}
    assert {name: lines[name]["method"] for name in ids} == ids
    assert all(lines[name]["code"] == "ok" and lines[name]["sequences"] == 1 for name in ids)
    metrics = httpx.get(f"{served.url}/metrics").text
    for transport in ("rest", "grpc"):
        assert f'electra_requests_total{{code="ok",model="ranker",transport="{transport}"}}' in metrics
    assert QUERY not in served.stderr
