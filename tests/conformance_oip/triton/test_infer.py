"""Inference by tritonclient: numbers of `/v1/encode`, over every form of a request."""

from __future__ import annotations

import queue
from typing import Any, Final

import httpx
import numpy as np
import pytest

from tests.conformance_clients.served import Served
from tests.conformance_oip.samples import (
    ALIAS,
    CLASSIFIER,
    ENCODER,
    IDS,
    LONG,
    OUTPUTS,
    PAIRS,
    SEGMENTS,
    TEXTS,
    check,
    expected,
    mask,
    rectangle,
    texts,
)
from tests.conformance_oip.triton.clients import CLIENTS, GRPC, HTTP, Client, authorized, id_of, ids

INTEGERS: Final = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
ALGORITHMS: Final = ("gzip", "deflate")
PADDED: Final = {"token_ids": rectangle(IDS), "segment_ids": rectangle(SEGMENTS), "padding_mask": mask(IDS)}


@pytest.fixture(params=[True, False], ids=["binary", "JSON"])
def binary(request: pytest.FixtureRequest) -> bool:
    """The form of tensors over REST."""
    return bool(request.param)


@pytest.mark.parametrize("output", OUTPUTS)
def test_ids(output: str, client: Client, served: Served) -> None:
    result = client.infer(served, ENCODER, PADDED, outputs=[output])
    check(result.as_numpy(output), expected(served, output, token_ids=IDS, segment_ids=SEGMENTS))


@pytest.mark.parametrize("output", OUTPUTS)
def test_texts(output: str, client: Client, served: Served) -> None:
    result = client.infer(served, ENCODER, {"text": texts(TEXTS)}, outputs=[output, "token_counts"])
    wanted = expected(served, output, text=TEXTS)
    check(result.as_numpy(output), wanted)
    counts = result.as_numpy("token_counts")
    assert counts.dtype == np.int32
    if output == "sequence_output":
        assert counts.max() == wanted.shape[1]
        np.testing.assert_array_equal(np.count_nonzero(np.any(wanted != 0, axis=2), axis=1), counts)


def test_texts_in_a_column(client: Client, served: Served) -> None:
    result = client.infer(served, ENCODER, {"text": texts(TEXTS)[:, np.newaxis]}, outputs=["mean_output"])
    check(result.as_numpy("mean_output"), expected(served, "mean_output", text=TEXTS))


@pytest.mark.parametrize("output", ["mean_output", "sequence_output"])
def test_pairs(output: str, client: Client, served: Served) -> None:
    result = client.infer(served, ENCODER, {"text": texts(PAIRS)}, outputs=[output])
    check(result.as_numpy(output), expected(served, output, text=PAIRS))


@pytest.mark.parametrize("http", HTTP, ids=lambda client: client.name)
@pytest.mark.parametrize("binary_output", [True, False], ids=["binary output", "JSON output"])
def test_forms_over_rest(binary_output: bool, binary: bool, http: Client, served: Served) -> None:
    inputs = [http.input(name, array, binary_data=binary) for name, array in PADDED.items()]
    outputs = [http.output(name, binary_data=binary_output) for name in OUTPUTS]
    result = http.call(served, "infer", ENCODER, inputs, outputs=outputs)
    for output in OUTPUTS:
        assert ("binary_data_size" in result.get_output(output).get("parameters", {})) is binary_output
        check(result.as_numpy(output), expected(served, output, token_ids=IDS, segment_ids=SEGMENTS))


@pytest.mark.parametrize("http", HTTP, ids=lambda client: client.name)
@pytest.mark.parametrize("samples", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_texts_over_rest(samples: Any, binary: bool, http: Client, served: Served) -> None:
    text = http.input("text", texts(samples), binary_data=binary)
    outputs = [http.output("mean_output", binary_data=binary), http.output("token_counts", binary_data=not binary)]
    result = http.call(served, "infer", ENCODER, [text], outputs=outputs)
    check(result.as_numpy("mean_output"), expected(served, "mean_output", text=samples))
    assert len(result.as_numpy("token_counts")) == len(samples)


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda dtype: dtype.__name__)
def test_integers(dtype: Any, client: Client, served: Served) -> None:
    inputs = {"token_ids": rectangle(IDS, dtype), "padding_mask": mask(IDS, dtype)}
    result = client.infer(served, ENCODER, inputs, outputs=["mean_output"])
    check(result.as_numpy("mean_output"), expected(served, "mean_output", token_ids=IDS))


@pytest.mark.parametrize("dtype", [*INTEGERS, np.bool_], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("http", HTTP, ids=lambda client: client.name)
def test_integers_in_json(dtype: Any, http: Client, served: Served) -> None:
    id_type = np.int64 if dtype is np.bool_ else dtype
    inputs = [
        http.input("token_ids", rectangle(IDS, id_type), binary_data=False),
        http.input("segment_ids", rectangle(SEGMENTS, dtype), binary_data=False),
        http.input("padding_mask", mask(IDS, dtype), binary_data=False),
    ]
    result = http.call(served, "infer", ENCODER, inputs, outputs=[http.output("mean_output")])
    wanted = expected(served, "mean_output", token_ids=IDS, segment_ids=SEGMENTS)
    check(result.as_numpy("mean_output"), wanted)


def test_booleans(client: Client, served: Served) -> None:
    inputs = PADDED | {"segment_ids": rectangle(SEGMENTS, np.bool_), "padding_mask": mask(IDS, np.bool_)}
    result = client.infer(served, ENCODER, inputs, outputs=["mean_output"])
    check(result.as_numpy("mean_output"), expected(served, "mean_output", token_ids=IDS, segment_ids=SEGMENTS))


def test_one_sequence_of_one_axis(client: Client, served: Served) -> None:
    result = client.infer(served, ENCODER, {"token_ids": np.array(IDS[0])}, outputs=["mean_output"])
    check(result.as_numpy("mean_output"), expected(served, "mean_output", token_ids=[IDS[0]]))


def test_zeros_are_ids_without_a_mask(client: Client, served: Served) -> None:
    result = client.infer(served, ENCODER, ids(), outputs=["mean_output"])
    check(result.as_numpy("mean_output"), expected(served, "mean_output", token_ids=rectangle(IDS).tolist()))


def test_names_of_transformers(client: Client, served: Served) -> None:
    inputs = {
        "input_ids": PADDED["token_ids"],
        "token_type_ids": PADDED["segment_ids"],
        "attention_mask": PADDED["padding_mask"],
    }
    names = {"last_hidden_state": "sequence_output", "pooler_output": "pooled_output"}
    result = client.infer(served, ENCODER, inputs, outputs=list(names))
    for name, output in names.items():
        check(result.as_numpy(name), expected(served, output, token_ids=IDS, segment_ids=SEGMENTS))


def test_aliases_of_models(client: Client, served: Served) -> None:
    result = client.infer(served, ALIAS, ids(), outputs=["cls_output"])
    response = result.get_response()
    assert (response["model_name"] if client.is_http else response.model_name) == ENCODER
    assert (response["model_version"] if client.is_http else response.model_version) == "1"


def test_versions_and_ids(client: Client, served: Served) -> None:
    result = client.infer(served, ENCODER, ids(), model_version="1", request_id="request 7", outputs=["cls_output"])
    assert id_of(result) == "request 7"
    check(result.as_numpy("cls_output"), expected(served, "cls_output", token_ids=rectangle(IDS).tolist()))


def test_heads(client: Client, served: Served) -> None:
    rows = [[2, 5, 4, 9], [2, 7, 3, 8]]
    result = client.infer(served, CLASSIFIER, {"token_ids": np.array(rows)}, outputs=["logits"])
    check(result.as_numpy("logits"), expected(served, "logits", model=CLASSIFIER, token_ids=rows))


def test_all_parameters(client: Client, served: Served) -> None:
    """Parameters that the service does not know are ignored."""
    options = {"priority": 1, "timeout": 30_000_000, "parameters": {"truncate": True, "note": "a", "weight": 0.5}}
    result = client.infer(served, ENCODER, {"text": texts([LONG])}, outputs=["mean_output"], **options)
    wanted = expected(served, "mean_output", text=[LONG], truncation="longest_first")
    check(result.as_numpy("mean_output"), wanted)


@pytest.mark.parametrize("http", HTTP, ids=lambda client: client.name)
@pytest.mark.parametrize("request_algorithm", [None, *ALGORITHMS])
@pytest.mark.parametrize("response_algorithm", [None, *ALGORITHMS])
def test_compression_over_rest(
    request_algorithm: str | None, response_algorithm: str | None, http: Client, served: Served
) -> None:
    algorithms = {
        "request_compression_algorithm": request_algorithm,
        "response_compression_algorithm": response_algorithm,
    }
    result = http.infer(served, ENCODER, PADDED, outputs=["sequence_output"], **algorithms)
    wanted = expected(served, "sequence_output", token_ids=IDS, segment_ids=SEGMENTS)
    check(result.as_numpy("sequence_output"), wanted)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("output", ["binary", "JSON"])
def test_responses_are_compressed(algorithm: str, output: str, served: Served) -> None:
    body = {
        "inputs": [{"name": "token_ids", "shape": [1, 5], "datatype": "INT64", "data": IDS[0]}],
        "parameters": {"binary_data_output": output == "binary"},
    }
    url = f"{served.url}/v2/models/{ENCODER}/infer"
    response = httpx.post(url, json=body, headers={**authorized(), "accept-encoding": algorithm})
    assert response.headers["content-encoding"] == algorithm
    assert int(response.headers["content-length"]) < len(response.content)


@pytest.mark.parametrize("grpc", GRPC, ids=lambda client: client.name)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_compression_over_grpc(algorithm: str, grpc: Client, served: Served) -> None:
    result = grpc.infer(served, ENCODER, PADDED, outputs=["sequence_output"], compression_algorithm=algorithm)
    wanted = expected(served, "sequence_output", token_ids=IDS, segment_ids=SEGMENTS)
    check(result.as_numpy("sequence_output"), wanted)


def test_asynchronous_http(served: Served) -> None:
    http = CLIENTS[0]
    with http.module.InferenceServerClient(http.address(served), concurrency=4) as client:
        pending = [
            client.async_infer(ENCODER, [http.input("token_ids", np.array([row]))], headers=authorized()) for row in IDS
        ]
        for row, request in zip(IDS, pending, strict=True):
            check(request.get_result().as_numpy("mean_output"), expected(served, "mean_output", token_ids=[row]))


def test_asynchronous_grpc(served: Served) -> None:
    grpc = CLIENTS[2]
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with grpc.module.InferenceServerClient(grpc.address(served)) as client:
        for number, row in enumerate(IDS):
            client.async_infer(
                ENCODER,
                [grpc.input("token_ids", np.array([row]))],
                lambda result, error: done.put((result, error)),
                request_id=str(number),
                headers=authorized(),
            )
        results = [done.get(timeout=60) for _ in IDS]
    assert [error for _, error in results] == [None] * len(IDS)
    for result, _ in results:
        row = IDS[int(id_of(result))]
        check(result.as_numpy("mean_output"), expected(served, "mean_output", token_ids=[row]))
