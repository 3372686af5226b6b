"""Classification is the same over REST and gRPC, and so are the reasons why a request is rejected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import httpx
import numpy as np
import pytest

from electra_serve.client.base import AsyncClient
from electra_serve.client.grpc import AsyncGrpcElectraClient
from electra_serve.client.response import ClassifyResponse, Label, Span
from electra_serve.client.rest import AsyncElectraClient
from electra_serve.client.retry import RetryPolicy
from electra_serve.errors import DeadlineExceeded, InvalidInput, ModelNotFound, PayloadTooLarge, ServiceError
from electra_serve.observability.requests import RequestObserver
from electra_serve.presets.heads import HeadConfig
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import Output
from tests.contract.sides import SERVICE, application
from tests.contract.stack import MAX_LENGTH, MAX_SEQUENCES, TINY, Stack, make_settings
from tests.serving import grpc_server

SENTIMENT, TAGS, QUESTIONS, REPLACED = "sentiment", "tags", "questions", "replaced"
HEADS: Final = {
    SENTIMENT: HeadConfig("sequence_classification", ("bad", "good", "neither"), "softmax"),
    TAGS: HeadConfig("token_classification", ("O", "B-X"), "softmax"),
    QUESTIONS: HeadConfig("question_answering", ("start", "end"), "softmax"),
    REPLACED: HeadConfig("replaced_token_detection", ("replaced",), "sigmoid"),
}
"""Models that take ids."""
TEXT_HEADS: Final = {f"{name}_text": head for name, head in HEADS.items()}
"""Models that also take texts."""
RETRY_NEVER: Final = RetryPolicy(max_attempts=1)
SIDES: Final = ("rest", "grpc")


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    settings = make_settings()
    models = (*settings.models, *(ModelSettings(preset=name) for name in (*HEADS, *TEXT_HEADS)))
    built = Stack.build(settings.model_copy(update={"models": models}), heads=HEADS, text_heads=TEXT_HEADS)
    await built.manager.load_all()
    yield built
    await built.manager.close()


@asynccontextmanager
async def rest(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(application(stack), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@asynccontextmanager
async def typed(stack: Stack, side: str) -> AsyncIterator[AsyncClient]:
    """A typed client of a transport."""
    if side == "rest":
        async with rest(stack) as http, AsyncElectraClient("http://test", http=http, retry=RETRY_NEVER) as client:
            yield client
        return
    observer = RequestObserver("grpc", stack.metrics, stack.log)
    async with (
        grpc_server(stack.service, stack.settings.grpc, observer, max_sequences=MAX_SEQUENCES) as (_, port),
        AsyncGrpcElectraClient(f"127.0.0.1:{port}", retry=RETRY_NEVER) as client,
    ):
        yield client


@pytest.fixture(params=SIDES)
async def client(stack: Stack, request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    async with typed(stack, request.param) as connected:
        yield connected


def softmax(*logits: float) -> list[float]:
    powers = np.exp(np.array(logits) - max(logits))
    return [float(score) for score in powers / powers.sum()]


async def test_labels_of_sequences(client: AsyncClient, stack: Stack) -> None:
    response = await client.classify(token_ids=[[1, 7, 9], [0]], model=SENTIMENT)
    assert (response.model, response.head, response.tokens) == (SENTIMENT, "sequence_classification", 4)
    assert response.truncated == (False, False)
    assert [label.label for label in response.labels[0]] == ["neither", "good", "bad"]
    assert [label.score for label in response.labels[0]] == pytest.approx(softmax(1, 2, 3)[::-1])
    assert [label.label for label in response.labels[1]] == ["bad", "good", "neither"]
    assert (response.spans, response.answers) == ((), ())
    assert set(stack.engines[SENTIMENT].requested) == {frozenset({Output.LOGITS})}


async def test_the_best_labels_and_their_logits(client: AsyncClient) -> None:
    response = await client.classify(token_ids=[[5, 6]], model=SENTIMENT, top_k=2, raw_scores=True)
    assert response.labels == ((Label("neither", 15.0), Label("good", 10.0)),)


async def test_pairs_of_texts_have_labels(client: AsyncClient) -> None:
    response = await client.classify(text=["alone", ("a", "pair")], model=f"{SENTIMENT}_text", top_k=1)
    assert [label.label for (label,) in response.labels] == ["neither", "neither"]


async def test_spans_of_a_text_have_offsets(client: AsyncClient) -> None:
    text = "Ünïque 日本 😀 the"
    response = await client.classify(text=[text], model=f"{TAGS}_text", aggregation="none", raw_scores=True)
    assert response.head == "token_classification"
    (spans,) = response.spans
    assert all(span.text == text[span.start : span.end] and span.part == 0 for span in spans)
    assert [span.text for span in spans][-4:] == ["日", "本", "😀", "the"]
    assert {span.label for span in spans} == {"B-X"}
    assert all((span.token_start, span.token_end) == (None, None) for span in spans)


async def test_words_are_joined(client: AsyncClient) -> None:
    text = "Alice unforgettable"
    (none,), (first,) = [
        (await client.classify(text=[text], model=f"{TAGS}_text", aggregation=name)).spans for name in ("none", "first")
    ]
    assert len(none) > len(first) == 2
    assert [(span.label, span.text) for span in first] == [("X", "Alice"), ("X", "unforgettable")]


async def test_spans_of_ids_are_positions(client: AsyncClient) -> None:
    response = await client.classify(token_ids=[[5, 0, 6]], padding_mask=[[1, 1, 0]], model=TAGS, raw_scores=True)
    assert response.spans == ((Span("X", 10.0, token_start=0, token_end=1),),)


async def test_replaced_tokens_have_a_probability_each(client: AsyncClient) -> None:
    response = await client.classify(token_ids=[[0, 5]], model=REPLACED)
    assert [(span.label, span.token_start) for span in response.spans[0]] == [("replaced", 0), ("replaced", 1)]
    assert [span.score for span in response.spans[0]] == pytest.approx([0.5, 1 / (1 + np.exp(-5))])


async def test_answer_spans_of_a_question(client: AsyncClient) -> None:
    context = "The White Rabbit ran away from the old Queen."
    response = await client.classify(
        question="Who ran away?", context=[context, "Alice."], model=f"{QUESTIONS}_text", top_k=3
    )
    assert response.head == "question_answering"
    assert len(response.answers) == 2
    best = response.answers[0][0]
    assert (best.label, best.part) == ("", 1)
    assert best.text == context[best.start : best.end]
    assert response.answers[1][0].text in {"Alice", "Alice.", "."}


async def test_a_pair_is_a_question_and_its_context(client: AsyncClient) -> None:
    model = f"{QUESTIONS}_text"
    pair = await client.classify(text=[("Who?", "Alice and the Queen.")], model=model)
    both = await client.classify(question="Who?", context="Alice and the Queen.", model=model)
    assert pair.answers == both.answers


async def test_a_long_context_is_read_in_windows(client: AsyncClient, stack: Stack) -> None:
    model = f"{QUESTIONS}_text"
    context = "a " * 520 + "Queen"
    response = await client.classify(question="Who?", context=context, model=model, stride=0, raw_scores=True)
    assert response.tokens > 520
    assert response.truncated == (False,)
    assert sum(len(batch.placements) for batch in stack.engines[model].batches) == 2
    assert len(response.answers[0]) == 1


async def test_answer_spans_in_ids_are_positions(client: AsyncClient) -> None:
    response = await client.classify(
        token_ids=[[1, 9, 2, 5, 3, 2]], segment_ids=[[0, 0, 0, 1, 1, 1]], model=QUESTIONS, raw_scores=True
    )
    assert response.answers == ((Span("", 15.0, token_start=3, token_end=4),),)


async def test_what_is_too_long_is_truncated_on_request(client: AsyncClient) -> None:
    response = await client.classify(token_ids=[[1] * (MAX_LENGTH + 2), [2]], model=SENTIMENT, truncate=True)
    assert response.truncated == (True, False)
    assert response.tokens == MAX_LENGTH + 1


async def test_an_alias_or_no_priority_changes_nothing_and_requests_are_counted(
    client: AsyncClient, stack: Stack, request: pytest.FixtureRequest
) -> None:
    response = await client.classify(token_ids=[[1]], model=SENTIMENT, priority="low")
    assert response.request_id
    transport = request.node.callspec.params["client"]
    labels = {"model": SENTIMENT, "transport": transport, "code": "ok"}
    assert stack.metrics.registry.get_sample_value("electra_requests_total", labels) == 1


REJECTED: Final[Mapping[str, tuple[dict[str, Any], type[ServiceError], str | None, str]]] = {
    "a model without a head": (
        {"token_ids": [[1]], "model": TINY},
        InvalidInput,
        "model",
        "that of tiny is none, and models with a head are sentiment, tags",
    ),
    "an unknown model": ({"token_ids": [[1]], "model": "none"}, ModelNotFound, "model", ""),
    "no labels wanted": ({"token_ids": [[1]], "model": SENTIMENT, "top_k": 0}, InvalidInput, "top_k", "from 1 to"),
    "a negative top_k": ({"token_ids": [[1]], "model": SENTIMENT, "top_k": -1}, InvalidInput, "top_k", "got -1"),
    "an aggregation of labels": (
        {"token_ids": [[1]], "model": SENTIMENT, "aggregation": "first"},
        InvalidInput,
        "aggregation",
        "options of a sequence_classification model must be among top_k, raw_scores; got aggregation",
    ),
    "top_k of spans": ({"token_ids": [[1]], "model": TAGS, "top_k": 1}, InvalidInput, "top_k", "got top_k"),
    "a stride of replaced tokens": (
        {"token_ids": [[1]], "model": REPLACED, "stride": 1},
        InvalidInput,
        "stride",
        "must be among raw_scores",
    ),
    "words of ids": (
        {"token_ids": [[1]], "model": TAGS, "aggregation": "first"},
        InvalidInput,
        "aggregation",
        "aggregation first needs texts",
    ),
    "windows of ids": ({"token_ids": [[1]], "model": TAGS, "stride": 1}, InvalidInput, "stride", "got token_ids"),
    "windows without aggregation": (
        {"text": ["a"], "model": f"{TAGS}_text", "stride": 1, "aggregation": "none"},
        InvalidInput,
        "aggregation",
        "must be simple or first",
    ),
    "windows that are truncated": (
        {"text": ["a"], "model": f"{TAGS}_text", "stride": 1, "truncate": True},
        InvalidInput,
        "truncation",
        "got longest_first",
    ),
    "a negative stride": (
        {"text": ["a"], "model": f"{TAGS}_text", "stride": -1},
        InvalidInput,
        "stride",
        "from 0 to 65536; got -1",
    ),
    "a stride that leaves no step": (
        {"text": ["a " * 600], "model": f"{TAGS}_text", "stride": 510},
        InvalidInput,
        "text[0]",
        "use a smaller stride",
    ),
    "too many windows": (
        {"text": ["a " * 550], "model": f"{TAGS}_text", "stride": 500},
        PayloadTooLarge,
        "text[0]",
        "must be at most 4 sequences",
    ),
    "a question without a context": (
        {"text": ["Who?"], "model": f"{QUESTIONS}_text"},
        InvalidInput,
        "text[0]",
        "question answering needs a question and a context",
    ),
    "ids without segments": (
        {"token_ids": [[1]], "model": QUESTIONS},
        InvalidInput,
        "segment_ids",
        "needs segment_ids, 1 for the context",
    ),
    "ids without a context": (
        {"token_ids": [[1], [2]], "segment_ids": [[1], [0]], "model": QUESTIONS},
        InvalidInput,
        "segment_ids[1]",
        "ids of segment 1; got none",
    ),
    "too many answers": (
        {"text": [("a", "b")], "model": f"{QUESTIONS}_text", "top_k": 101},
        InvalidInput,
        "top_k",
        "from 1 to 100",
    ),
    "an answer too long": (
        {"text": [("a", "b")], "model": f"{QUESTIONS}_text", "max_answer_length": 513},
        InvalidInput,
        "max_answer_length",
        "from 1 to 512; got 513",
    ),
    "text to a model without tokenizer": ({"text": ["a"], "model": SENTIMENT}, InvalidInput, "text", "takes token_ids"),
    "an id out of vocabulary": ({"token_ids": [[10**6]], "model": SENTIMENT}, InvalidInput, "token_ids[0][0]", ""),
    "a sequence too long": ({"token_ids": [[1] * 99], "model": SENTIMENT}, InvalidInput, "token_ids[0]", ""),
    "too many sequences": (
        {"token_ids": [[1]] * (MAX_SEQUENCES + 1), "model": SENTIMENT},
        PayloadTooLarge,
        "token_ids",
        "",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
async def test_bad_input_is_rejected(client: AsyncClient, stack: Stack, case: str) -> None:
    arguments, error, field, message = REJECTED[case]
    with pytest.raises(error) as caught:
        await client.classify(**arguments)
    assert type(caught.value) is error
    assert caught.value.field == field
    assert message in caught.value.message
    assert stack.batches() == 0


async def test_a_deadline_is_kept(client: AsyncClient, stack: Stack) -> None:
    stack.engines[SENTIMENT].gate.clear()
    with pytest.raises(DeadlineExceeded):
        await client.classify(token_ids=[[1]], model=SENTIMENT, timeout_s=0.2)
    stack.open()


OVER_REST: Final[Mapping[str, tuple[dict[str, Any], int, str | None]]] = {
    "neither ids nor text": ({"model": SENTIMENT}, 400, None),
    "a question without context": ({"model": QUESTIONS, "question": "Who?"}, 422, "context"),
    "a context without question": ({"model": QUESTIONS, "context": "Alice."}, 422, "question"),
    "questions and ids": ({"question": "a", "context": "b", "token_ids": [[1]]}, 400, "token_ids"),
    "a question that is a number": ({"question": 7, "context": "b"}, 400, "question"),
    "fewer contexts": ({"question": ["a", "b", "c"], "context": ["a", "b"]}, 422, "context"),
    "too many contexts": ({"question": "a", "context": ["b"] * (MAX_SEQUENCES + 1)}, 413, "context"),
    "an unknown aggregation": ({"token_ids": [[1]], "aggregation": "max"}, 422, "aggregation"),
    "an aggregation that is a number": ({"token_ids": [[1]], "aggregation": 1}, 400, "aggregation"),
    "a top_k in quotes": ({"token_ids": [[1]], "top_k": "1"}, 400, "top_k"),
    "a top_k of 1.5": ({"token_ids": [[1]], "top_k": 1.5}, 400, "top_k"),
    "a stride of true": ({"token_ids": [[1]], "stride": True}, 400, "stride"),
    "raw scores in quotes": ({"token_ids": [[1]], "raw_scores": "no"}, 400, "raw_scores"),
    "outputs": ({"token_ids": [[1]], "outputs": ["logits"]}, 400, None),
}


@pytest.mark.parametrize("case", OVER_REST)
async def test_bad_json_is_rejected(stack: Stack, case: str) -> None:
    body, status, field = OVER_REST[case]
    async with rest(stack) as client:
        response = await client.post("/v1/classify", json={"model": SENTIMENT, **body})
    problem = response.json()
    assert (response.status_code, problem.get("field")) == (status, field), problem
    assert stack.batches() == 0


OVER_GRPC: Final = {
    "an unknown aggregation": (pb.ClassifyRequest(model=SENTIMENT, aggregation=99), "aggregation"),  # type: ignore[arg-type]
    "no input": (pb.ClassifyRequest(model=SENTIMENT), "input"),
}


@pytest.mark.parametrize("case", OVER_GRPC)
async def test_bad_messages_are_rejected(stack: Stack, case: str) -> None:
    message, field = OVER_GRPC[case]
    if field == "aggregation":
        message.text.texts.add(first="a")
    observer = RequestObserver("grpc", stack.metrics, stack.log)
    async with (
        grpc_server(stack.service, stack.settings.grpc, observer, max_sequences=MAX_SEQUENCES) as (_, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/Classify")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(message.SerializeToString())
    metadata = dict(caught.value.trailing_metadata() or ())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert metadata["electra-error-field"] == field


async def test_both_transports_say_the_same(stack: Stack) -> None:
    found: list[ClassifyResponse] = []
    for side in SIDES:
        async with typed(stack, side) as client:
            found.append(await client.classify(text=["Alice met her."], model=f"{TAGS}_text", aggregation="first"))
    over_rest, over_grpc = found
    assert [(span.text, span.start, span.end, span.label) for span in over_rest.spans[0]] == [
        (span.text, span.start, span.end, span.label) for span in over_grpc.spans[0]
    ]
    assert [span.score for span in over_rest.spans[0]] == pytest.approx([span.score for span in over_grpc.spans[0]])
