"""Thousands of bad bodies to the APIs of other servers: no server error, and errors in the form of each API."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from electra_serve.presets.heads import HeadConfig
from tests.contract.heads import preset_with
from tests.integration.process import ServiceProcess, start
from tests.load.bodies import odd_body
from tests.load.conftest import Report
from tests.load.gauges import wait_at_rest
from tests.load.mutations import mutated
from tests.oip_requests import LENGTH, Bytes, binary, strings

AMOUNTS: Final = [pytest.param(150, id="short"), pytest.param(10_000, id="long", marks=pytest.mark.long)]
CROSS_ENCODER: Final = HeadConfig("sequence_classification", ("LABEL_0",), "sigmoid")
PATIENCE_S: Final = 60.0
DOCUMENTS: Final = ["Alice fell down a well.", "The Queen made some tarts.", "a"]
OPENAI_TYPES: Final = {"invalid_request_error", "authentication_error", "rate_limit_error", "server_error"}
TEI_TYPES: Final = {"Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"}

INFER: Final = "/v2/models/encoder/infer"
COMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}
IDS: Final = {"name": "token_ids", "datatype": "INT64", "shape": [2, 3], "data": [[5, 6, 7], [8, 9, 0]]}
MASK: Final = {
    "name": "padding_mask",
    "datatype": "BOOL",
    "shape": [2, 3],
    "data": [True, True, True, True, True, False],
}
TEXTS: Final = {"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": ["a text", "another"]}

Body = Mapping[str, object]


def is_openai_error(body: Any) -> bool:
    """Returns True for an object `error` with OpenAI's members."""
    error = body.get("error")
    return (
        isinstance(error, dict)
        and set(error) == {"message", "type", "param", "code"}
        and isinstance(error["message"], str)
        and error["type"] in OPENAI_TYPES
        and isinstance(error["code"], str)
        and isinstance(error["param"], str | None)
    )


def is_rerank_error(body: Any) -> bool:
    """Returns True for an error that clients of Cohere, Jina and vLLM can read."""
    return isinstance(body.get("message"), str) and body["detail"] == body["message"] and is_openai_error(body)


def is_tei_error(body: Any) -> bool:
    """Returns True for an error of Text Embeddings Inference."""
    return set(body) == {"error", "error_type"} and isinstance(body["error"], str) and body["error_type"] in TEI_TYPES


def is_oip_error(body: Any) -> bool:
    """Returns True for an error that clients of the Open Inference Protocol can read."""
    return isinstance(body["error"], str) and {"code", "request_id"} <= body.keys()


@dataclass(frozen=True, slots=True)
class Family:
    """Routes with one form of errors.

    Attributes:
        good: Paths with good bodies.
        statuses: Statuses of rejections.
        has_form: Checks the body of a rejection.
    """

    good: Sequence[tuple[str, Body]]
    statuses: frozenset[int]
    has_form: Callable[[Any], bool]


FAMILIES: Final = {
    "openai": Family(
        (
            ("/v1/embeddings", {"model": "encoder", "input": ["a text", "another"], "encoding_format": "float"}),
            ("/v1/embeddings", {"model": "encoder", "input": "a text", "dimensions": None, "user": "somebody"}),
            (
                "/v1/embeddings",
                {"model": "encoder", "input": [[5, 6], [7]], "input_type": "query", "prompt_name": None},
            ),
        ),
        frozenset({400, 404, 413}),
        is_openai_error,
    ),
    "rerank": Family(
        (
            ("/v1/rerank", {"model": "ranker", "query": "Who fell?", "documents": DOCUMENTS, "return_documents": True}),
            ("/v2/rerank", {"model": "ranker", "query": "Who fell?", "documents": DOCUMENTS, "top_n": 2}),
            ("/rerank", {"model": "ranker", "query": "Who fell?", "documents": [{"text": "a"}, "b"]}),
            ("/score", {"model": "ranker", "text_1": "Who fell?", "text_2": DOCUMENTS, "raw_scores": True}),
        ),
        frozenset({400, 404, 413}),
        is_rerank_error,
    ),
    "tei": Family(
        (
            ("/embed", {"inputs": ["a text", "another"], "truncate": True, "normalize": False, "prompt_name": None}),
            ("/embed_all", {"inputs": "a text", "truncation_direction": "left"}),
            ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}, "parameters": {}}),
            ("/tokenize", {"inputs": ["a text"], "add_special_tokens": False}),
            ("/decode", {"ids": [[7, 8], [9]], "skip_special_tokens": True}),
            ("/", {"inputs": "a text", "normalize": True}),
        ),
        frozenset({400, 413, 422, 424}),
        is_tei_error,
    ),
    "oip": Family(
        (
            (INFER, {"id": "a", "inputs": [IDS, MASK], "outputs": [{"name": "mean_output"}], "parameters": {}}),
            (INFER, {"inputs": [TEXTS], "parameters": {"truncate": True, "priority": 2, "timeout": 60_000_000}}),
            (
                "/v2/models/encoder/versions/1/infer",
                {"inputs": [IDS], "outputs": None, "parameters": {"binary_data_output": True}},
            ),
        ),
        frozenset({400, 413}),
        is_oip_error,
    ),
    "tei, rerank": Family(
        (("/rerank", {"model": "ranker", "query": "Who fell?", "texts": DOCUMENTS, "return_text": True}),),
        frozenset({400, 404, 413, 422, 424}),
        lambda body: is_tei_error(body) or is_rerank_error(body),  # the body decides which form it is
    ),
}


@contextmanager
def served(folder: Path) -> Iterator[ServiceProcess]:
    """Starts the real service with an encoder and a cross-encoder."""
    ranker = preset_with(CROSS_ENCODER, folder / "ranker")
    encoder = {"preset": "electra_demo", "name": "encoder", "embedding": {"token_ids": "model"}}
    models = [encoder, {"preset": str(ranker.path), "name": "ranker"}]
    flags = ("--log.format=json", "--log.requests=false", "--apis.tei_model=encoder")
    with start(folder, f"--models={json.dumps(models)}", *flags) as process:
        process.wait_ready()
        yield process


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with served(tmp_path_factory.mktemp("fuzz")) as process:
        yield process


@pytest.mark.parametrize("bodies", AMOUNTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_bad_bodies(name: str, bodies: int, service: ServiceProcess, report: Report) -> None:
    family = FAMILIES[name]
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client:
        for path, body in family.good:
            assert client.post(path, json=body).status_code == 200
        for seed in range(bodies):
            path, body = family.good[seed // 2 % len(family.good)]
            response = client.post(path, content=odd_body(body, seed), headers={"content-type": "application/json"})
            statuses[response.status_code] += 1
            if response.status_code == 200:
                continue
            assert response.status_code in family.statuses, (seed, path, response.text)
            assert family.has_form(response.json()), (seed, path, response.text)
    report(f"{bodies} bodies: {dict(sorted(statuses.items()))}")
    assert statuses[200]
    assert statuses[400] + statuses[422] > statuses[200]
    wait_at_rest(service)
    assert service.status("/readyz") == 200
    assert [event for event in service.events if event["level"] in {"error", "critical"}] == []


@pytest.mark.parametrize("bodies", AMOUNTS)
def test_bad_bytes_of_tensors(bodies: int, service: ServiceProcess, report: Report) -> None:
    ids, mask = np.array([[5, 6, 7], [8, 9, 0]]), np.array([[1, 1, 1], [1, 1, 0]], np.int8)
    texts = Bytes("text", strings(b"a text", b"another"), [2], "BYTES")
    given = (binary(Bytes.of("token_ids", ids), Bytes.of("padding_mask", mask)), binary(texts))
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client:
        for seed in range(bodies):
            body, coding = _odd_bytes(*given[seed // 4 % len(given)], seed), list(COMPRESS)[seed % len(COMPRESS)]
            content, headers = COMPRESS[coding](body[0]), body[1] | {"content-encoding": coding}
            content = content if seed % 5 else mutated(content, seed)
            response = client.post(INFER, content=content, headers=headers)
            statuses[response.status_code] += 1
            assert response.status_code in {200, 400, 413}, (seed, response.text)
            assert response.status_code == 200 or is_oip_error(response.json()), (seed, response.text)
    report(f"{bodies} bodies: {dict(sorted(statuses.items()))}")
    assert min(statuses[200], statuses[400])
    wait_at_rest(service)
    assert service.status("/readyz") == 200
    assert [event for event in service.events if event["level"] in {"error", "critical"}] == []


def _odd_bytes(body: bytes, headers: Mapping[str, str], seed: int) -> tuple[bytes, dict[str, str]]:
    """Changes all of a body, its JSON, the values of its tensors, or their bytes and number."""
    length = int(headers[LENGTH])
    head, tail = body[:length], body[length:]
    match seed % 4:
        case 0:
            return mutated(body, seed), dict(headers)
        case 1:
            head = mutated(head, seed)
        case 2:
            at = seed % len(tail)
            tail = tail[:at] + bytes([tail[at] ^ 1 << seed % 3]) + tail[at + 1 :]
        case _:
            tail = mutated(tail, seed)
    return head + tail, {LENGTH: str(len(head))}
