"""Routes of Text Embeddings Inference by the real process: an encoder, a classifier and a cross-encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from electra_serve import ElectraClient
from electra_serve.presets.catalog import DEMO_ID
from tests.contract.heads import HEADS, preset_with
from tests.integration.process import ServiceProcess, start
from tests.waiting import wait_until

ROUTES: Final = {"classifier": "sequences, ELECTRA's", "reranker": "sequences, BERT's"}
MANY: Final = 2048
TEXTS: Final = ["Alice's café is in 東京 🎉.", "", "The Queen — no, the Duchess — said so."]

Start = Callable[[str], ServiceProcess]


def softmax(row: Sequence[float]) -> list[float]:
    powers = np.exp(np.array(row))
    scores: list[float] = (powers / powers.sum()).tolist()
    return scores


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Serves all models, with one of them as that of the routes; each process is started once."""
    folder = tmp_path_factory.mktemp("tei")
    for name, head in ROUTES.items():
        preset_with(HEADS[head], folder / name)
    flags = [f"--models={model}" for model in (DEMO_ID, *(folder / name for name in ROUTES))]
    started: dict[str, ServiceProcess] = {}
    with ExitStack() as stack:

        def of(model: str) -> ServiceProcess:
            if model not in started:
                where: Path = tmp_path_factory.mktemp(model or "none")
                chosen = [f"--apis.tei_model={model}"] if model else []
                started[model] = stack.enter_context(start(where, *flags, *chosen, "--log.format=json"))
                started[model].wait_ready()
            return started[model]

        yield of


def post(process: ServiceProcess, path: str, **members: object) -> Any:
    response = httpx.post(f"{process.url}{path}", json=members, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def scores_of(labels: list[dict[str, Any]]) -> dict[str, float]:
    return {label["label"]: label["score"] for label in labels}


def test_vectors_are_those_of_encode(serve: Start) -> None:
    process = serve(DEMO_ID)
    with ElectraClient(process.url) as client:
        encoded = client.encode(text=TEXTS, model=DEMO_ID, outputs=["sequence_output", "mean_output"])
    means, states = encoded.mean_output, encoded.sequence_output
    assert means is not None
    assert states is not None
    plain = np.array(post(process, "/embed", inputs=TEXTS, normalize=False))
    assert np.abs(plain - np.array(means)).max() < 1e-5
    unit = np.array(post(process, "/embed", inputs=TEXTS))
    assert np.linalg.norm(unit, axis=1) == pytest.approx([1.0] * 3, abs=1e-5)
    for found, expected in zip(post(process, "/embed_all", inputs=TEXTS), states, strict=True):
        assert np.abs(np.array(found) - expected).max() < 1e-5
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    assert post(process, "/similarity", inputs=inputs) == pytest.approx((unit[1:] @ unit[0]).tolist(), abs=1e-5)
    assert np.abs(np.array(post(process, "/", inputs=TEXTS)) - unit).max() < 1e-5


def test_long_texts_are_cut_on_either_side_or_rejected(serve: Start) -> None:
    process = serve(DEMO_ID)
    words = [f"{word} " for word in ("rabbit", "queen") for _ in range(600)]
    text = "".join(words)
    cut = {
        direction: post(process, "/embed", inputs=text, truncate=True, truncation_direction=direction)
        for direction in ("Right", "Left")
    }
    assert cut["Right"] == post(process, "/embed", inputs=text) != cut["Left"]
    response = httpx.post(f"{process.url}/embed", json={"inputs": ["a", text], "truncate": False})
    assert (response.status_code, response.json()["error_type"]) == (422, "Validation")
    assert response.json()["error"].startswith("inputs[1]: ")
    ids = httpx.post(f"{process.url}/embed", json={"inputs": [2, 5, 3]})
    assert (ids.status_code, ids.json()["error_type"]) == (422, "Validation")


def test_many_texts_in_one_request(serve: Start) -> None:
    process = serve(DEMO_ID)
    texts = [f"text {index}" for index in range(MANY)]
    vectors = np.array(post(process, "/embed", inputs=texts))
    some = [0, 31, 32, 1000, MANY - 1]
    assert vectors.shape[0] == MANY
    alone = np.array(post(process, "/embed", inputs=[texts[index] for index in some]))
    assert np.abs(vectors[some] - alone).max() < 1e-5
    response = httpx.post(f"{process.url}/embed", json={"inputs": [*texts, "one more"]})
    assert (response.status_code, response.json()["error_type"]) == (413, "Validation")


def test_tokens_lead_back_to_the_text(serve: Start) -> None:
    process = serve(DEMO_ID)
    for text, tokens in zip(TEXTS, post(process, "/tokenize", inputs=TEXTS), strict=True):
        data = text.encode()
        first, *middle, last = tokens
        assert [(token["text"], token["special"], token["start"]) for token in (first, last)] == [
            ("[CLS]", True, None),
            ("[SEP]", True, None),
        ]
        for token in middle:
            assert token["text"] == data[token["start"] : token["stop"]].decode() != ""
        assert middle == post(process, "/tokenize", inputs=[text], add_special_tokens=False)[0]
        ids = [token["id"] for token in tokens]
        (decoded,) = post(process, "/decode", ids=ids)
        (whole,) = post(process, "/decode", ids=[ids], skip_special_tokens=False)
        assert whole.startswith("[CLS]")
        assert "[CLS]" not in decoded
    assert post(process, "/decode", ids=[ids]) == [decoded]


def test_labels_of_a_classifier(serve: Start) -> None:
    process = serve("classifier")
    names = HEADS[ROUTES["classifier"]].labels
    pair = ("Was it naïve?", TEXTS[2])
    with ElectraClient(process.url) as client:
        logits = client.encode(text=[TEXTS[0], pair], model="classifier", outputs=["logits"]).logits
    assert logits is not None
    batch = post(process, "/predict", inputs=[[TEXTS[0]], list(pair)])
    single, of_pair = post(process, "/predict", inputs=TEXTS[0]), post(process, "/predict", inputs=list(pair))
    raw = post(process, "/predict", inputs=TEXTS[0], raw_scores=True)
    for found, row in zip(batch, logits, strict=True):
        expected = dict(zip(names, softmax(row), strict=True))
        assert [label["label"] for label in found] == sorted(expected, key=lambda name: -expected[name])
        assert scores_of(found) == pytest.approx(expected, abs=1e-5)
    assert scores_of(single) == pytest.approx(scores_of(batch[0]), abs=1e-5)
    assert scores_of(of_pair) == pytest.approx(scores_of(batch[1]), abs=1e-5)
    assert [label["score"] for label in raw] == pytest.approx(sorted(logits[0].tolist(), reverse=True), abs=1e-5)
    assert scores_of(post(process, "/", inputs=TEXTS[0])) == pytest.approx(scores_of(single), abs=1e-5)
    info = httpx.get(f"{process.url}/info").json()
    assert info["model_type"]["classifier"]["id2label"] == {str(index): name for index, name in enumerate(names)}


def test_one_label_has_a_sigmoid(serve: Start) -> None:
    process = serve("reranker")
    raw = post(process, "/predict", inputs=["a", "b"], raw_scores=True)
    scored = post(process, "/predict", inputs=["a", "b"])
    assert [label["label"] for label in scored] == ["relevant"]
    assert scored[0]["score"] == pytest.approx(1 / (1 + np.exp(-raw[0]["score"])), abs=1e-5)
    ranked = post(process, "/", query="a", texts=["b", TEXTS[0]])
    assert ranked == post(process, "/rerank", query="a", texts=["b", TEXTS[0]])
    assert {entry["index"]: entry["score"] for entry in ranked}[0] == pytest.approx(scored[0]["score"], abs=1e-5)
    assert httpx.get(f"{process.url}/info").json()["model_type"].keys() == {"reranker"}


def test_a_model_without_labels_is_no_classifier(serve: Start) -> None:
    response = httpx.post(f"{serve(DEMO_ID).url}/predict", json={"inputs": "a"})
    assert (response.status_code, response.json()["error_type"]) == (424, "Backend")
    assert "classifier, reranker" in response.json()["error"]


def test_several_models_need_the_setting(serve: Start) -> None:
    process = serve("")
    for path in ("/embed", "/"):
        response = httpx.post(f"{process.url}{path}", json={"inputs": "a"})
        assert (response.status_code, response.json()["error_type"]) == (424, "Backend")
        assert "set apis.tei_model" in response.json()["error"]
    assert process.status("/info") == 424
    assert process.status("/health") == 200


def test_requests_are_counted_and_logged(serve: Start) -> None:
    process = serve(DEMO_ID)
    headers = {"x-request-id": "order-7"}
    response = httpx.post(f"{process.url}/embed", json={"inputs": ["a", "bc"]}, headers=headers)
    assert (response.headers["x-request-id"], response.headers["x-compute-characters"]) == ("order-7", "3")
    wait_until(lambda: "order-7" in process.stderr)
    (line,) = (event for event in process.events if event.get("request_id") == "order-7")
    assert (line["method"], line["model"], line["code"], line["sequences"]) == ("POST /embed", DEMO_ID, "ok", 2)
    assert line["tokens"] == int(response.headers["x-compute-tokens"])
