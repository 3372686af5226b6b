"""Classification by the real process, for the typed clients of both transports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import httpx
import numpy as np
import pytest

from electra_serve import ElectraClient, GrpcElectraClient
from electra_serve.errors import InvalidInput
from electra_serve.presets.catalog import DEMO_ID
from tests.contract.heads import HEADS, preset_with
from tests.integration.process import ServiceProcess, start
from tests.waiting import wait_until

NAMES: Final = {
    "sentiment": "sequences, ELECTRA's",
    "ranker": "sequences, BERT's",
    "tags": "tokens",
    "questions": "questions",
    "replaced": "replaced tokens",
}
TEXTS: Final[list[str | tuple[str, str]]] = [
    "Alice's café is in 東京 🎉.",
    ("Was it naïve?", "The Queen — no, the Duchess — said so."),
]
CONTEXT: Final = " ".join(["The Rabbit was late, and the Queen was in a hurry."] * 120)

Client = ElectraClient | GrpcElectraClient


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("classify")
    for name, head in NAMES.items():
        preset_with(HEADS[head], folder / name)
    flags = [f"--models={folder / name}" for name in NAMES]
    with start(folder, *flags, f"--models={DEMO_ID}", "--log.format=json") as process:
        process.wait_ready()
        yield process


@pytest.fixture(params=["rest", "grpc"])
def client(request: pytest.FixtureRequest, served: ServiceProcess) -> Iterator[Client]:
    made = ElectraClient(served.url) if request.param == "rest" else GrpcElectraClient(served.target)
    with made as opened:
        yield opened


def test_labels_follow_the_logits(client: Client) -> None:
    logits = client.encode(text=TEXTS, model="sentiment", outputs=["logits"]).logits
    labels = client.classify(text=TEXTS, model="sentiment").labels
    raw = client.classify(text=TEXTS, model="sentiment", raw_scores=True, top_k=1).labels
    assert logits is not None
    names = HEADS[NAMES["sentiment"]].labels
    for row, found, (best,) in zip(logits, labels, raw, strict=True):
        powers = np.exp(row)
        scores = dict(zip(names, powers / powers.sum(), strict=True))
        assert [label.label for label in found] == sorted(scores, key=lambda name: -scores[name])
        assert [label.score for label in found] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-5)
        assert best.label == found[0].label
        assert best.score == pytest.approx(float(row.max()), abs=1e-5)


def test_a_cross_encoder_scores_pairs_with_its_activation(client: Client) -> None:
    pair: list[str | tuple[str, str]] = [("Who was late?", "The Rabbit was late.")]
    logits = client.encode(text=pair, model="ranker", outputs=["logits"]).logits
    ((label,),) = client.classify(text=pair, model="ranker").labels
    assert logits is not None
    assert label.label == "relevant"
    assert label.score == pytest.approx(float(logits[0, 0]), abs=1e-5)


@pytest.mark.parametrize("aggregation", ["none", "simple", "first"])
def test_spans_are_where_the_text_is(client: Client, aggregation: str) -> None:
    single, pair = client.classify(text=TEXTS, model="tags", aggregation=aggregation).spans
    texts = {0: [str(TEXTS[0])], 1: list(TEXTS[1])}
    assert single
    assert pair
    for index, spans in enumerate((single, pair)):
        for span in spans:
            assert span.part is not None
            assert span.text == texts[index][span.part][span.start : span.end] != ""
            assert span.label != "O"


def test_replaced_tokens(client: Client) -> None:
    logits = client.encode(text=TEXTS, model="replaced", outputs=["token_logits"]).token_logits
    response = client.classify(text=TEXTS, model="replaced")
    assert logits is not None
    for row, spans in zip(logits, response.spans, strict=True):
        assert len(spans) == len(row) - (2 if spans[-1].part == 0 else 3)
        assert {span.label for span in spans} == {"replaced"}
        probabilities = 1 / (1 + np.exp(-row[:, 0]))
        assert [span.score for span in spans[:3]] == pytest.approx(probabilities[1:4].tolist(), abs=1e-5)


def test_a_long_context_has_answer_spans_from_all_windows(client: Client) -> None:
    response = client.classify(question="Who was late?", context=[CONTEXT, "Alice."], model="questions", top_k=5)
    long, short = response.answers
    assert len(long) == 5
    assert [answer.score for answer in long] == sorted((answer.score for answer in long), reverse=True)
    assert all(answer.text == CONTEXT[answer.start : answer.end] for answer in long)
    assert short[0].text in {"Alice", "Alice.", "."}
    assert response.tokens > 3 * 512
    assert response.truncated == (False, False)


def test_a_model_without_a_head_names_those_with_one(client: Client) -> None:
    with pytest.raises(InvalidInput, match="models with a head are sentiment, ranker, tags, questions") as caught:
        client.classify(text="a", model=DEMO_ID)
    assert caught.value.field == "model"


def test_requests_are_counted_and_logged(served: ServiceProcess) -> None:
    with GrpcElectraClient(served.target) as client:
        over_grpc = client.classify(text="Alice", model="tags").request_id
    httpx.post(f"{served.url}/v1/classify", json={"text": "a", "model": "tags"}, headers={"x-request-id": "order-7"})
    wait_until(lambda: "order-7" in served.stderr)
    lines = {event.get("request_id"): event for event in served.events if event["event"] == "request"}
    assert (lines["order-7"]["method"], lines[over_grpc]["method"]) == ("POST /v1/classify", "Classify")
    assert all(lines[name]["code"] == "ok" and lines[name]["model"] == "tags" for name in ("order-7", over_grpc))
    metrics = httpx.get(f"{served.url}/metrics").text
    for transport in ("rest", "grpc"):
        assert f'electra_requests_total{{code="ok",model="tags",transport="{transport}"}}' in metrics
    compilations = [line for line in metrics.splitlines() if line.startswith("electra_compilations_after_warm_up{")]
    assert all(line.endswith(" 0.0") for line in compilations)
