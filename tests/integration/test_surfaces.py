"""Probes, metrics, documents, health, reflection and the log of the real process."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from electra_serve.presets.catalog import DEMO_ID, find
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from electra_serve.settings.schema import ApiSettings
from tests.integration.process import ServiceProcess
from tests.integration.responses import over_grpc, over_rest, random_rows
from tests.integration.standard import health_of, reflect
from tests.waiting import wait_until

ENCODER: Final = "electra.v1.EncoderService"
CODES: Final = {
    "ok", "malformed_request", "unsupported_media_type", "invalid_input", "payload_too_large", "unauthenticated",
    "model_not_found",
    "model_not_ready", "shutting_down", "overloaded", "deadline_exceeded", "cancelled", "engine_failure", "conflict",
    "model_load_failed", "internal", "unsupported",
}  # fmt: skip
HISTOGRAMS: Final = {
    "electra_request_seconds", "electra_queue_wait_seconds", "electra_compute_seconds", "electra_batch_sequences",
    "electra_batch_tokens",
}  # fmt: skip
COUNTERS: Final = {"electra_requests", "electra_real_tokens", "electra_padded_tokens"}
GAUGES: Final = {
    "electra_queued_sequences", "electra_queued_tokens", "electra_queue_oldest_wait_seconds",
    "electra_queued_work_seconds", "electra_engines",
    "electra_requests_in_flight", "electra_compilations_after_warm_up", "electra_model_ready",
    "electra_model_load_seconds", "electra_build_info",
}  # fmt: skip
TRANSPORTS: Final = ("rest", "grpc", "oip_rest", "oip_grpc")
SECRET: Final = "supercalifragilistic"


def parse(exposition: str) -> dict[str, Metric]:
    """Returns the metric families by name; fails if the text is not in Prometheus' format."""
    return {family.name: family for family in text_string_to_metric_families(exposition)}


def value(exposition: str, sample: str, **labels: str) -> float:
    """Returns one sample; fails if it is absent, or present twice."""
    found = [
        candidate.value
        for family in parse(exposition).values()
        for candidate in family.samples
        if candidate.name == sample and labels.items() <= candidate.labels.items()
    ]
    assert len(found) == 1, (sample, labels, found)
    return found[0]


def test_probes_say_that_all_is_well(rest: httpx.Client) -> None:
    for path in ("/livez", "/readyz"):
        assert (rest.get(path).status_code, rest.get(path).json()) == (200, {"status": "ok"})


def test_every_series_is_there_before_the_first_request(scraped_before_traffic: str) -> None:
    families = parse(scraped_before_traffic)
    for kind, names in (("histogram", HISTOGRAMS), ("counter", COUNTERS), ("gauge", GAUGES)):
        assert names <= families.keys()
        assert {families[name].type for name in names} == {kind}
        for name in names - {"electra_requests_in_flight", "electra_build_info"}:
            assert DEMO_ID in {sample.labels["model"] for sample in families[name].samples}, name
    for transport in TRANSPORTS:
        counted = {
            sample.labels["code"]: sample.value
            for sample in families["electra_requests"].samples
            if sample.name == "electra_requests_total"
            and (sample.labels["model"], sample.labels["transport"]) == (DEMO_ID, transport)
        }
        assert counted == dict.fromkeys(CODES, 0.0)
    assert value(scraped_before_traffic, "electra_model_ready", model=DEMO_ID) == 1
    assert value(scraped_before_traffic, "electra_log_lines_dropped_total") == 0
    assert families["electra_event_loop_lag_seconds"].type == "histogram"
    assert value(scraped_before_traffic, "electra_model_load_seconds", model=DEMO_ID) > 0


def test_requests_are_counted(rest: httpx.Client, stub: EncoderServiceStub) -> None:
    before = rest.get("/metrics").text
    over_rest(rest, token_ids=[[1, 2, 3]], padding_mask=[[1, 0, 1]])
    over_grpc(stub, [[1, 2, 3, 4]])
    after = rest.get("/metrics").text

    def grown(sample: str, **labels: str) -> float:
        return value(after, sample, **labels) - value(before, sample, **labels)

    for transport in ("rest", "grpc"):
        assert grown("electra_requests_total", model=DEMO_ID, transport=transport, code="ok") == 1
        assert grown("electra_request_seconds_count", model=DEMO_ID, transport=transport) == 1
    assert grown("electra_real_tokens_total", model=DEMO_ID) == 6
    assert grown("electra_padded_tokens_total", model=DEMO_ID) >= 7
    assert grown("electra_batch_sequences_sum", model=DEMO_ID) == 2
    assert grown("electra_queue_wait_seconds_count", model=DEMO_ID) == 2
    assert grown("electra_compute_seconds_count", model=DEMO_ID) == 2


def test_no_shape_is_compiled_after_warm_up(rest: httpx.Client, stub: EncoderServiceStub) -> None:
    outputs = [["mean_output"], ["cls_output"], ["pooled_output"], ["sequence_output", "mean_output"]]

    def ask(index: int) -> None:
        rows = random_rows([1 + (7 * index + 13 * row) % 512 for row in range(1 + index % 5)], seed=index)
        over_rest(rest, token_ids=rows, outputs=outputs[index % len(outputs)])
        over_grpc(stub, rows[:1])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(16)))
    assert value(rest.get("/metrics").text, "electra_compilations_after_warm_up", model=DEMO_ID) == 0


def test_the_queue_is_empty_without_requests(rest: httpx.Client) -> None:
    exposition = rest.get("/metrics").text
    for gauge in ("electra_queued_sequences", "electra_queued_tokens", "electra_queue_oldest_wait_seconds"):
        assert value(exposition, gauge, model=DEMO_ID) == 0
    assert value(exposition, "electra_requests_in_flight", transport="grpc") == 0


def test_the_document_describes_what_is_served(rest: httpx.Client) -> None:
    document = rest.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    paths = {
        "/v1/encode",
        "/v1/classify",
        "/v1/tokenize",
        "/v1/embeddings",
        "/v1/models",
        "/livez",
        "/readyz",
        "/metrics",
    }
    paths |= {"/v1/rerank", "/v2/rerank", "/rerank", "/score"}
    assert paths <= document["paths"].keys()
    encode = document["paths"]["/v1/encode"]["post"]
    assert {"200", "400", "404", "413", "422", "429", "500", "503", "504"} <= encode["responses"].keys()
    for example in encode["requestBody"]["content"]["application/json"]["examples"].values():
        response = rest.post("/v1/encode", json=example["value"])
        assert response.status_code == 200, response.text


def test_models_say_that_the_weights_are_trained_and_the_pooler_is_not(
    rest: httpx.Client, stub: EncoderServiceStub
) -> None:
    model = rest.get(f"/v1/models/{DEMO_ID}").json()
    assert rest.get("/v1/models").json() == {"object": "list", "data": [model], "models": [model]}
    described = stub.GetModel(pb.GetModelRequest(name=DEMO_ID), timeout=60).model
    assert (model["state"], described.state) == ("ready", pb.MODEL_STATE_READY)
    assert (model["weights"], described.weights) == ("pretrained", pb.WEIGHTS_PRETRAINED)
    assert (model["pooler"], described.pooler) == ("random", pb.WEIGHTS_RANDOM)
    assert model["source"] == described.source == "embedded"
    assert model["revision"] == described.revision
    assert model["parameters"] == described.parameters == 2_042_944
    assert model["config"]["hidden_dim"] == described.config.hidden_dim == 192
    assert find(DEMO_ID) is None, "the demo is no published checkpoint"


@pytest.mark.parametrize("service_name", ["", ENCODER])
def test_health_is_serving(channel: grpc.Channel, service_name: str) -> None:
    assert health_of(channel, service_name) == "SERVING"


def test_reflection_lists_the_services_and_their_messages(channel: grpc.Channel) -> None:
    requests = (
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=ENCODER),
    )
    listed, described = reflect(channel, requests)
    names = {service.name for service in listed.list_services_response.service}
    assert {ENCODER, "grpc.health.v1.Health"} <= names
    files = [FileDescriptorProto.FromString(data) for data in described.file_descriptor_response.file_descriptor_proto]
    methods = {method.name for file in files for service in file.service for method in service.method}
    assert methods == {"Encode", "EncodeStream", "Classify", "Embed", "Rerank", "ListModels", "GetModel"}


def test_the_log_names_requests_and_holds_no_bodies(
    service: ServiceProcess, rest: httpx.Client, stub: EncoderServiceStub
) -> None:
    rest.post("/v1/encode", json={"text": SECRET}, headers={"x-request-id": "order-7"})
    rest.post("/v1/encode", json={"text": [SECRET], "model": SECRET}, headers={"x-request-id": "order-8"})
    stub.Encode(pb.EncodeRequest(text=pb.TextInput(texts=[pb.Text(first=SECRET)]), request_id="order-9"), timeout=60)

    wait_until(lambda: "order-9" in service.stderr)
    lines = {event["request_id"]: event for event in service.events if event["event"] == "request"}
    assert [lines[name]["code"] for name in ("order-7", "order-8", "order-9")] == ["ok", "model_not_found", "ok"]
    assert [lines[name]["transport"] for name in ("order-7", "order-8", "order-9")] == ["rest", "rest", "grpc"]
    assert SECRET not in service.stderr + service.stdout
    assert {"timestamp", "level"} <= set.intersection(*(set(event) for event in service.events))


def test_the_terminal_shows_the_address_for_the_first_request(service: ServiceProcess) -> None:
    wait_until(lambda: f"curl -s {service.url}/v1/encode" in service.stdout)
    assert service.target in service.stdout


def test_the_start_up_log_says_that_the_weights_are_trained(service: ServiceProcess) -> None:
    wait_until(lambda: '"model ready"' in service.stderr)
    ready = [event for event in service.events if event["event"] == "model ready"]
    assert [(event["model"], event["weights"]) for event in ready] == [(DEMO_ID, "pretrained")]


def test_the_log_is_json_and_nothing_else(service: ServiceProcess) -> None:
    assert service.complaints == []


def test_a_body_may_be_as_large_as_its_route_allows(rest: httpx.Client) -> None:
    limit = ApiSettings().max_body_bytes
    texts = ["a" * 60_000] * 100
    body = json.dumps({"input": texts, "user": "b" * (limit - len(json.dumps({"input": texts})) - 20)}).encode()
    assert limit - 100 < len(body) <= limit
    response = rest.post("/v1/embeddings", content=body, headers={"content-type": "application/json"}, timeout=60)
    assert (response.status_code, len(response.json()["data"])) == (200, len(texts))
    longer = rest.post("/v1/embeddings", content=body + b" " * 100, headers={"content-type": "application/json"})
    assert (longer.status_code, longer.json()["error"]["code"]) == (413, "payload_too_large")
