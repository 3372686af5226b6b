"""OpenAI's own client: vectors, errors and retries."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.conformance_clients.served import KEY, Served, serve
from tests.conformance_clients.texts import LONG, TEXTS

TOLERANCE: Final = 1e-5
SLOW_ID: Final = 3994
"""Of `benchmarks.stand_in`: its batch takes ten times as long."""
ORDINARY_ID: Final = 7
BATCH_S: Final = 0.4
DEADLINE_MS: Final = 1000
"""Longer than an ordinary batch, shorter than a slow one."""


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.v1, api_key=KEY, max_retries=0) as made:
        yield made


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}], ids=str)
def test_vectors_equal_those_of_encode(encoding: dict[str, Any], served: Served, client: OpenAI) -> None:
    response = client.embeddings.create(model="encoder", input=list(TEXTS), **encoding)
    assert (response.object, response.model) == ("list", "encoder")
    assert [item.index for item in response.data] == list(range(len(TEXTS)))
    assert response.usage.prompt_tokens == response.usage.total_tokens > len(TEXTS)
    vectors = [_decoded(item.embedding) for item in response.data]
    np.testing.assert_allclose(vectors, served.vectors(TEXTS), rtol=0, atol=TOLERANCE)


def _decoded(embedding: Any) -> Any:
    """The client decodes base64 only if it asked for it by itself."""
    return np.frombuffer(b64decode(embedding), "<f4") if isinstance(embedding, str) else embedding


def test_asynchronous_client(served: Served) -> None:
    async def embed() -> list[list[float]]:
        async with AsyncOpenAI(base_url=served.v1, api_key=KEY) as client:
            responses = await asyncio.gather(*(client.embeddings.create(model="encoder", input=text) for text in TEXTS))
        return [response.data[0].embedding for response in responses]

    np.testing.assert_allclose(asyncio.run(embed()), served.vectors(TEXTS), rtol=0, atol=TOLERANCE)


def test_many_texts_in_one_request(served: Served, client: OpenAI) -> None:
    texts = [f"text number {number}" for number in range(2048)]
    response = client.embeddings.create(model="encoder", input=texts)
    assert len(response.data) == len(texts)
    some = slice(0, len(texts), 97)
    found = [item.embedding for item in response.data[some]]
    np.testing.assert_allclose(found, served.vectors(texts[some]), rtol=0, atol=TOLERANCE)


def test_headers_of_a_response(client: OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(model="encoder", input=["short", LONG])
    assert raw.headers["x-truncated-inputs"] == "1"
    assert raw.parse()._request_id == raw.headers["x-request-id"] != ""


def test_models(client: OpenAI) -> None:
    assert {"encoder", "ranker", "text-embedding-3-small"} <= {model.id for model in client.models.list()}
    model = client.models.retrieve("encoder")
    assert (model.id, model.object) == ("encoder", "model")


def test_an_alias_serves_a_name_of_openai(served: Served, client: OpenAI) -> None:
    response = client.embeddings.create(model="text-embedding-3-small", input="a text")
    np.testing.assert_allclose(response.data[0].embedding, served.vectors(["a text"])[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "error", "code", "param"),
    [
        ({"model": "absent"}, openai.NotFoundError, "model_not_found", None),
        ({"dimensions": 4096}, openai.BadRequestError, "invalid_input", "dimensions"),
        ({"input": []}, openai.BadRequestError, "invalid_input", "input"),
        ({"input": [[1, 2, 3]]}, openai.BadRequestError, "invalid_input", "input"),
        ({"input": ["x"] * 2049}, openai.APIStatusError, "payload_too_large", "input"),
    ],
    ids=["no such model", "too many dimensions", "no input", "token ids", "too many inputs"],
)
def test_errors(
    options: dict[str, Any], error: type[openai.APIStatusError], code: str, param: str | None, client: OpenAI
) -> None:
    with pytest.raises(error) as caught:
        client.embeddings.create(**{"model": "encoder", "input": "a text", **options})
    assert (caught.value.code, caught.value.type) == (code, "invalid_request_error")
    assert param is None or caught.value.param == param
    assert caught.value.request_id


def test_a_wrong_key(served: Served) -> None:
    with (
        OpenAI(base_url=served.v1, api_key="not-the-right-key-at-all") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.embeddings.create(model="encoder", input="a text")
    assert (caught.value.type, caught.value.status_code) == ("authentication_error", 401)


def test_the_client_retries_while_the_queue_is_full(tmp_path: Path) -> None:
    """A slow batch runs and the queue is full: one client fails, one succeeds by retries."""
    script = {"STAND_IN": json.dumps({"batch_s": BATCH_S})}
    flags = ("--batching.max_queue_sequences=1", "--limits.max_sequences=1")
    with (
        serve(tmp_path, (), *flags, module="benchmarks.stand_in", environment=script) as served,
        ThreadPoolExecutor() as threads,
    ):
        statuses: list[int] = []

        def hold(token_id: int) -> httpx.Response:
            return served.post("/v1/encode", {"token_ids": [[token_id]], "outputs": ["mean_output"]})

        def embed(retries: int, record: Callable[[int], object]) -> int:
            transport = httpx.Client(event_hooks={"response": [lambda response: record(response.status_code)]})
            with OpenAI(base_url=served.v1, api_key=KEY, max_retries=retries, http_client=transport) as client:
                limit = {"x-request-timeout-ms": str(DEADLINE_MS)}
                return len(client.embeddings.create(model="electra_demo", input="a text", extra_headers=limit).data)

        holders = [threads.submit(hold, SLOW_ID)]
        time.sleep(BATCH_S)  # it runs by now
        holders += [threads.submit(hold, ORDINARY_ID) for _ in range(4)]
        time.sleep(BATCH_S)
        patient = threads.submit(embed, 20, statuses.append)
        with pytest.raises(openai.RateLimitError) as caught:
            embed(0, lambda status: None)
        assert (caught.value.code, caught.value.type) == ("overloaded", "rate_limit_error")
        assert caught.value.response.headers["x-should-retry"] == "true"
        assert float(caught.value.response.headers["retry-after"]) > 0
        assert patient.result() == 1
        assert {429} == set(statuses[:-1])
        assert statuses[-1] == 200
        assert holders[0].result().status_code == 200
