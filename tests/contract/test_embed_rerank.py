"""Embedding and reranking are the same over REST and gRPC, and so are the reasons why a request is rejected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import numpy as np
import pytest

from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.client.base import AsyncClient
from electra_serve.client.grpc import AsyncGrpcElectraClient
from electra_serve.client.response import RankedDocument
from electra_serve.client.rest import AsyncElectraClient
from electra_serve.client.retry import RetryPolicy
from electra_serve.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    PayloadTooLarge,
    ServiceError,
    Unauthenticated,
)
from electra_serve.observability.requests import RequestObserver
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.heads import HeadConfig
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.serving.sequences import renamed_field
from electra_serve.settings.schema import ApiSettings, ModelSettings
from electra_serve.tensors import Output
from tests.contract.sides import SERVICE, application
from tests.contract.stack import MAX_SEQUENCES, MAX_TEXT_CHARACTERS, TINY, Stack, make_settings
from tests.serving import grpc_server

RANKER, SENTIMENT = "ranker", "sentiment"
TEXT_HEADS: Final = {
    RANKER: HeadConfig("sequence_classification", ("relevant",), "none"),
    SENTIMENT: HeadConfig("sequence_classification", ("bad", "good"), "softmax"),
}
APIS: Final = ApiSettings(max_inputs=40, max_documents=40)
RETRY_NEVER: Final = RetryPolicy(max_attempts=1)
SIDES: Final = ("rest", "grpc")
CLS: Final = 101.0
"""Id of [CLS] in the demo's vocabulary, and so the fake engine's logit."""


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    settings = make_settings()
    models = (*settings.models, *(ModelSettings(preset=name) for name in TEXT_HEADS))
    built = Stack.build(settings.model_copy(update={"models": models, "apis": APIS}), text_heads=TEXT_HEADS)
    await built.manager.load_all()
    yield built
    built.open()
    await built.manager.close()


@asynccontextmanager
async def grpc_port(stack: Stack) -> AsyncIterator[int]:
    """Serves the stack over gRPC; yields the port."""
    serving = grpc_server(
        stack.service,
        stack.settings.grpc,
        RequestObserver("grpc", stack.metrics, stack.log),
        max_sequences=MAX_SEQUENCES,
        authenticator=stack.authenticator,
        apis=stack.settings.apis,
    )
    async with serving as (_, port):
        yield port


@asynccontextmanager
async def typed(stack: Stack, side: str) -> AsyncIterator[AsyncClient]:
    """A typed client of a transport."""
    if side == "rest":
        transport = httpx.ASGITransport(application(stack), raise_app_exceptions=False)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://test") as http,
            AsyncElectraClient("http://test", http=http, retry=RETRY_NEVER) as client,
        ):
            yield client
        return
    async with grpc_port(stack) as port, AsyncGrpcElectraClient(f"127.0.0.1:{port}", retry=RETRY_NEVER) as client:
        yield client


@pytest.fixture(params=SIDES)
async def client(stack: Stack, request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    async with typed(stack, request.param) as connected:
        yield connected


async def test_texts_have_unit_vectors_in_their_order(client: AsyncClient, stack: Stack) -> None:
    texts = ["a", "the Queen", "", "Alice was late"] * 5
    response = await client.embed(texts, model=DEMO_ID)
    encoded = [await client.encode(text=[text], model=DEMO_ID, outputs=["embedding"]) for text in texts[:4]]
    assert response.model == DEMO_ID
    assert response.embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(response.embeddings, axis=1), 1, rtol=1e-6)
    for index, single in enumerate(encoded):
        assert single.embedding is not None
        unit = single.embedding[0] / np.linalg.norm(single.embedding[0])
        np.testing.assert_allclose(response.embeddings[index], unit, atol=1e-6)
    assert response.tokens == 5 * sum(single.tokens for single in encoded)
    assert response.truncated == 0
    assert response.request_id
    assert not response.embeddings.flags.writeable


async def test_one_text_is_enough_and_long_ones_are_truncated(client: AsyncClient) -> None:
    assert (await client.embed("a", model=DEMO_ID)).embeddings.shape[0] == 1
    assert (await client.embed(["a", "a " * 520, "a"], model=DEMO_ID)).truncated == 1


async def test_documents_have_scores(client: AsyncClient, stack: Stack) -> None:
    response = await client.rerank("Who?", ["Alice", "the Queen", "the Rabbit"], model=RANKER)
    assert response.model == RANKER
    score = 1 / (1 + np.exp(-CLS))
    assert [document.index for document in response.results] == [0, 1, 2]
    assert [document.score for document in response.results] == pytest.approx([score] * 3, abs=1e-6)
    assert set(stack.engines[RANKER].requested) == {frozenset({Output.LOGITS})}
    assert response.tokens > 3 * 4
    assert response.request_id


async def test_the_best_documents_with_raw_scores(client: AsyncClient) -> None:
    response = await client.rerank("Who?", ["Alice", "Bill"] * 20, model=RANKER, top_n=2, raw_scores=True)
    assert response.results == (RankedDocument(0, CLS), RankedDocument(1, CLS))


async def test_long_documents_are_truncated(client: AsyncClient) -> None:
    response = await client.rerank("a " * 300, ["a", "a " * 300], model=RANKER)
    assert response.truncated == 1


@pytest.mark.parametrize("method", ["embed", "rerank"])
async def test_requests_are_counted(
    client: AsyncClient, stack: Stack, request: pytest.FixtureRequest, method: str
) -> None:
    if method == "embed":
        await client.embed(["a"] * 3, model=DEMO_ID, priority="low")
    else:
        await client.rerank("a", ["b"] * 3, model=RANKER, priority="low")
    assert stack.counted(request.node.callspec.params["client"], "ok") == 1


REJECTED: Final[Mapping[str, tuple[str, dict[str, Any], type[ServiceError], str | None, str]]] = {
    "an unknown model": ("embed", {"texts": ["a"], "model": "none"}, ModelNotFound, "model", ""),
    "no model": ("embed", {"texts": ["a"]}, ModelNotFound, "model", ""),
    "an unknown prompt": (
        "embed",
        {"texts": ["a"], "model": DEMO_ID, "prompt_name": "query"},
        InvalidInput,
        "prompt_name",
        "the model has no prompts",
    ),
    "another length": (
        "embed",
        {"texts": ["a"], "model": DEMO_ID, "dimensions": 1},
        InvalidInput,
        "dimensions",
        "dimensions must be",
    ),
    "text to a model without tokenizer": (
        "embed",
        {"texts": ["a"], "model": TINY},
        InvalidInput,
        "text",
        "takes token_ids",
    ),
    "too many inputs": (
        "embed",
        {"texts": ["a"] * 41, "model": DEMO_ID},
        PayloadTooLarge,
        None,
        "at most 40",
    ),
    "no documents": ("rerank", {"query": "a", "documents": []}, InvalidInput, "documents", "at least one"),
    "too many documents": (
        "rerank",
        {"query": "a", "documents": ["b"] * 41},
        PayloadTooLarge,
        "documents",
        "at most 40 texts",
    ),
    "no documents wanted": (
        "rerank",
        {"query": "a", "documents": ["b"], "top_n": 0},
        InvalidInput,
        "top_n",
        "top_n must be at least 1; got 0",
    ),
    "a model with two labels": (
        "rerank",
        {"query": "a", "documents": ["b"], "model": SENTIMENT},
        InvalidInput,
        "model",
        "served cross-encoders are ranker",
    ),
    "a model without a head": (
        "rerank",
        {"query": "a", "documents": ["b"], "model": TINY},
        InvalidInput,
        "model",
        "the head of tiny is none, and served cross-encoders are ranker",
    ),
    "a query too long": (
        "rerank",
        {"query": "a " * 515, "documents": ["b"]},
        InvalidInput,
        "query",
        "query must have fewer than 512 ids",
    ),
    "a document of too many characters": (
        "rerank",
        {"query": "a", "documents": ["b", "b" * MAX_TEXT_CHARACTERS]},
        InvalidInput,
        "documents[1]",
        "at most 1200 characters",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
async def test_bad_input_is_rejected(client: AsyncClient, case: str) -> None:
    method, arguments, error, field, message = REJECTED[case]
    if method == "rerank":
        arguments = {"model": RANKER, **arguments}
    with pytest.raises(error) as caught:
        await getattr(client, method)(**arguments)
    assert type(caught.value) is error
    if isinstance(client, AsyncElectraClient) and method == "embed":  # OpenAI's name
        field = renamed_field(field, "input")
    assert field is None or caught.value.field == field
    assert message in caught.value.message


async def test_a_deadline_is_kept(client: AsyncClient, stack: Stack) -> None:
    for engine in stack.engines.values():
        engine.gate.clear()
    with pytest.raises(DeadlineExceeded):
        await client.embed("a", model=DEMO_ID, timeout_s=0.2)
    with pytest.raises(DeadlineExceeded):
        await client.rerank("a", ["b"], model=RANKER, timeout_s=0.2)


@pytest.mark.parametrize("side", SIDES)
async def test_a_key_is_needed_if_keys_are_configured(stack: Stack, side: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("shop-0123456789abcdef")
    keyed = replace(stack, authenticator=Authenticator(KeyRing(tmp_path / "keys", stack.log)))
    async with typed(keyed, side) as client:
        with pytest.raises(Unauthenticated):
            await client.embed("a", model=DEMO_ID)
        with pytest.raises(Unauthenticated):
            await client.rerank("a", ["b"], model=RANKER)
    assert stack.batches() == 0


OVER_GRPC: Final[Mapping[str, tuple[str, Any, str | None, str]]] = {
    "no input": ("Embed", pb.EmbedRequest(model=DEMO_ID), "input", "malformed_request"),
    "an unknown truncation": (
        "Embed",
        pb.EmbedRequest(text=pb.TextInput(texts=[pb.Text(first="a")]), truncation=99),  # type: ignore[arg-type]
        "truncation",
        "invalid_input",
    ),
    "ids": (
        "Embed",
        pb.EmbedRequest(
            model=TINY,
            tokens=pb.TokenInput(token_ids=[pb.Tensor(dtype=pb.DATA_TYPE_INT32, shape=[1], data=b"\1\0\0\0")]),
        ),
        "input",
        "invalid_input",
    ),
    "many more documents": (
        "Rerank",
        pb.RerankRequest(query="a", documents=["b"] * 400),
        None,
        "payload_too_large",
    ),
}


async def call(stack: Stack, method: str, message: bytes) -> bytes:
    """Calls a method with bytes."""
    async with grpc_port(stack) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        caller: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/{method}")
        return await caller(message)


@pytest.mark.parametrize("case", OVER_GRPC)
async def test_bad_messages_are_rejected(stack: Stack, case: str) -> None:
    method, message, field, code = OVER_GRPC[case]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(stack, method, message.SerializeToString())
    metadata = dict(caught.value.trailing_metadata() or ())
    assert (metadata["electra-error-code"], metadata.get("electra-error-field")) == (code, field)
    assert stack.batches() == 0


@pytest.mark.parametrize(("method", "data"), [("Embed", b"\xff"), ("Rerank", b"\x22\x01\xff"), ("Rerank", b"\x78\x01")])
async def test_bytes_that_are_no_message_are_rejected(stack: Stack, method: str, data: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(stack, method, data)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_options_of_the_messages(stack: Stack) -> None:
    text = pb.TextInput(texts=[pb.Text(first="a"), pb.Text(first="a " * 300, second="b " * 300)])
    request = pb.EmbedRequest(model=DEMO_ID, text=text, normalize=False, request_id="mine")
    response = pb.EmbedResponse.FromString(await call(stack, "Embed", request.SerializeToString()))
    vectors = np.frombuffer(response.embeddings.data, "<f4").reshape(list(response.embeddings.shape))
    assert np.linalg.norm(vectors, axis=1).min() > 1.5
    assert (response.request_id, list(response.truncated)) == ("mine", [False, True])
    assert (response.usage.sequences, response.model) == (2, DEMO_ID)
    request.truncation = pb.TRUNCATION_NONE
    with pytest.raises(grpc.aio.AioRpcError, match="unless truncation is allowed"):
        await call(stack, "Embed", request.SerializeToString())


async def test_a_query_larger_than_a_name_is_whole(stack: Stack) -> None:
    query = "a " * 400
    request = pb.RerankRequest(model=RANKER, query=query, documents=["b " * 200] * 35)
    assert request.ByteSize() > 4096
    response = pb.RerankResponse.FromString(await call(stack, "Rerank", request.SerializeToString()))
    assert all(response.truncated)
    assert response.usage.tokens == 35 * 512
