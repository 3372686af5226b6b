"""Clients that rerank documents: their order is that of transformers' logits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cohere
import litellm
import numpy as np
import pytest
from cohere.core.api_error import ApiError

from tests.conformance_clients.checkpoints import save_cross_encoder
from tests.conformance_clients.served import KEY, Served, serve
from tests.conformance_clients.texts import PASSAGES, QUERY

LOGITS: Final = np.asarray(json.loads((Path(__file__).parent / "relevance.json").read_text()))
ORDER: Final = np.argsort(-LOGITS).tolist()
SCORES: Final = (1 / (1 + np.exp(-LOGITS)))[ORDER]
TOLERANCE: Final = 1e-5
DOCUMENTS: Final = list(PASSAGES)


def check(ranking: Sequence[tuple[int, float]], amount: int = len(PASSAGES)) -> None:
    """Asserts order and scores."""
    assert [index for index, _ in ranking] == ORDER[:amount]
    np.testing.assert_allclose([score for _, score in ranking], SCORES[:amount], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("version", [cohere.Client, cohere.ClientV2], ids=["v1", "v2"])
@pytest.mark.parametrize("amount", [3, len(PASSAGES)])
def test_cohere(version: Any, amount: int, served: Served) -> None:
    client = version(api_key=KEY, base_url=served.url)
    response = client.rerank(model="ranker", query=QUERY, documents=DOCUMENTS, top_n=amount)
    check([(found.index, found.relevance_score) for found in response.results], amount)
    assert response.id


def test_cohere_v1_returns_documents(served: Served) -> None:
    documents: list[Any] = [{"text": passage} for passage in PASSAGES]
    client = cohere.Client(api_key=KEY, base_url=served.url)
    response = client.rerank(model="ranker", query=QUERY, documents=documents, return_documents=True)
    check([(found.index, found.relevance_score) for found in response.results])
    assert [found.document and found.document.text for found in response.results] == [PASSAGES[i] for i in ORDER]


def test_asynchronous_cohere(served: Served) -> None:
    async def rank() -> list[tuple[int, float]]:
        async with cohere.AsyncClientV2(api_key=KEY, base_url=served.url) as client:
            response = await client.rerank(model="ranker", query=QUERY, documents=DOCUMENTS)
        return [(found.index, found.relevance_score) for found in response.results]

    check(asyncio.run(rank()))


@pytest.mark.parametrize("version", [cohere.Client, cohere.ClientV2], ids=["v1", "v2"])
def test_cohere_names_the_models_that_rerank(version: Any, served: Served) -> None:
    with pytest.raises(ApiError) as caught:
        version(api_key=KEY, base_url=served.url).rerank(model="encoder", query=QUERY, documents=DOCUMENTS)
    assert caught.value.status_code in {400, 422}
    assert "ranker" in caught.value.body["message"]


@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("hosted_vllm", {}),
        ("infinity", {"return_documents": False}),  # its documents are strings, everywhere else objects
    ],
)
def test_litellm(provider: str, options: dict[str, bool], served: Served) -> None:
    response: Any = litellm.rerank(
        f"{provider}/ranker", query=QUERY, documents=list(PASSAGES), api_base=served.url, api_key=KEY, **options
    )
    check([(found["index"], found["relevance_score"]) for found in response.results])


def test_litellm_with_the_api_of_tei(tmp_path: Path) -> None:
    """It names no model, so this is the only one."""
    save_cross_encoder(tmp_path / "ranker")
    with serve(tmp_path, [{"preset": str(tmp_path / "ranker"), "dtype": "float32"}]) as alone:
        response: Any = litellm.rerank(
            "huggingface/ranker", query=QUERY, documents=list(PASSAGES), api_base=alone.url, api_key=KEY
        )
    check([(found["index"], found["relevance_score"]) for found in response.results])


def test_litellm_with_the_api_of_cohere(served: Served) -> None:
    response: Any = litellm.rerank(
        "cohere/ranker",
        query=QUERY,
        documents=list(PASSAGES),
        top_n=3,
        api_base=f"{served.url}/v2/rerank",
        api_key=KEY,
    )
    check([(found["index"], found["relevance_score"]) for found in response.results], 3)


def test_raw_scores_are_the_logits(served: Served) -> None:
    body = {"model": "ranker", "query": QUERY, "documents": PASSAGES, "raw_scores": True}
    response = served.post("/v1/rerank", body)
    assert response.status_code == 200
    found = [(item["index"], item["relevance_score"]) for item in response.json()["results"]]
    assert [index for index, _ in found] == ORDER
    np.testing.assert_allclose([score for _, score in found], LOGITS[ORDER], rtol=0, atol=1e-4)
