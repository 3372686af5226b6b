"""Frameworks that embed texts through OpenAI's API."""

from __future__ import annotations

import asyncio
from typing import Final

import litellm
import numpy as np
import openai
import pytest
import tiktoken
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from pydantic import SecretStr

from tests.conformance_clients.served import KEY, Served
from tests.conformance_clients.texts import TEXTS

TOLERANCE: Final = 1e-5
BATCH: Final = list(TEXTS)


def check(found: object, expected: object) -> None:
    """Asserts that vectors are equal."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)  # type: ignore[call-overload]


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm(provider: str, served: Served) -> None:
    response = litellm.embedding(f"{provider}/encoder", input=BATCH, api_base=served.v1, api_key=KEY)
    check([item["embedding"] for item in response.data], served.vectors(TEXTS))
    assert response.usage.prompt_tokens > len(TEXTS)


def test_litellm_with_null_as_the_format(served: Served) -> None:
    """Some of its versions send null."""
    body = {"model": "encoder", "input": BATCH, "encoding_format": None, "dimensions": None, "user": None}
    response = served.post("/v1/embeddings", body)
    assert response.status_code == 200
    check([item["embedding"] for item in response.json()["data"]], served.vectors(TEXTS))


def test_langchain(served: Served) -> None:
    embeddings = OpenAIEmbeddings(
        model="encoder", base_url=served.v1, api_key=SecretStr(KEY), check_embedding_ctx_length=False
    )
    check(embeddings.embed_documents(BATCH), served.vectors(TEXTS))
    check(embeddings.embed_query(TEXTS[0]), served.vectors(TEXTS[:1])[0])
    check(asyncio.run(embeddings.aembed_documents(BATCH)), served.vectors(TEXTS))


def test_langchain_that_sends_ids_gets_a_hint(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it sends ids of a vocabulary that it downloads, for which this one stands."""

    class Vocabulary:
        def encode_ordinary(self, text: str) -> list[int]:
            return [ord(character) for character in text]

        def encode(self, text: str, **_: object) -> list[int]:
            return self.encode_ordinary(text)

    monkeypatch.setattr(tiktoken, "get_encoding", lambda _: Vocabulary())
    embeddings = OpenAIEmbeddings(model="encoder", base_url=served.v1, api_key=SecretStr(KEY))
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings.embed_documents(BATCH)


def test_llama_index(served: Served) -> None:
    embedding = OpenAILikeEmbedding(model_name="encoder", api_base=served.v1, api_key=KEY)
    check(embedding.get_text_embedding_batch(BATCH), served.vectors(TEXTS))
    check(embedding.get_query_embedding(TEXTS[0]), served.vectors(TEXTS[:1])[0])
    check(asyncio.run(embedding.aget_text_embedding_batch(BATCH)), served.vectors(TEXTS))


def test_haystack(served: Served) -> None:
    key = Secret.from_token(KEY)
    documents = OpenAIDocumentEmbedder(api_key=key, model="encoder", api_base_url=served.v1, progress_bar=False)
    found = documents.run([Document(content=text) for text in TEXTS])["documents"]
    check([document.embedding for document in found], served.vectors(TEXTS))
    query = OpenAITextEmbedder(api_key=key, model="encoder", api_base_url=served.v1).run(TEXTS[0])
    check(query["embedding"], served.vectors(TEXTS[:1])[0])
