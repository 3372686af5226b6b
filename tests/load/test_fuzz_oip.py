"""Thousands of bad requests of the Open Inference Protocol: no server error, and errors in the protocol's form."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import grpc
import httpx
import pytest
import yaml
from hypothesis import given

from electra_serve.presets.catalog import DEMO_ID
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from tests.integration.process import ServiceProcess, start
from tests.load import oip_requests as requests
from tests.load.conftest import Report
from tests.load.gauges import wait_at_rest
from tests.load.oip_requests import GOOD
from tests.load.test_fuzz import many_examples

SHORT: Final = 200
AMOUNTS: Final = [pytest.param(SHORT, id="short"), pytest.param(10_000, id="long", marks=pytest.mark.long)]
PATIENCE_S: Final = 60.0
SERVICE: Final = "/inference.GRPCInferenceService"
# 504: a changed `timeout` may be a microsecond
STATUSES: Final = {400, 404, 413, 415, 504}
CODES: Final = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
DOCUMENT: Final = Path(__file__).parents[1] / "data" / "open_inference_rest.yaml"

Verdict = tuple[str, str]
"""Status, and message of a rejection."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with start(tmp_path_factory.mktemp("fuzz"), "--log.format=json", "--log.requests=false") as process:
        process.wait_ready()
        yield process


@pytest.fixture
def process(service: ServiceProcess) -> Iterator[ServiceProcess]:
    """The service; checks afterwards that it is idle, ready and logged no error."""
    yield service
    wait_at_rest(service)
    assert service.status("/readyz") == 200
    assert service.complaints == []
    assert [event for event in service.events if event["level"] in {"error", "critical"}] == []


@pytest.fixture
def rest(process: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=process.url, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def channel(process: ServiceProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(process.target) as connected:
        yield connected


def post(client: httpx.Client, request: requests.Post) -> httpx.Response:
    return client.post(request.path, content=request.body, headers=request.headers)


def check_rejection(response: httpx.Response, context: object) -> None:
    """Asserts the form that clients of Triton and KServe read."""
    assert response.status_code in STATUSES, (context, response.text)
    assert response.headers["content-type"] == "application/json", (context, response.headers)
    body = response.json()
    assert isinstance(body["error"], str), (context, body)
    assert body["error"], (context, body)
    assert isinstance(body["code"], str), (context, body)


@pytest.mark.parametrize("inputs", AMOUNTS)
def test_bad_bodies(inputs: int, rest: httpx.Client, report: Report) -> None:
    for infer in GOOD:
        for good in (requests.json_post(infer), requests.binary_post(infer)):
            assert post(rest, good).status_code == 200
            for encoding in requests.COMPRESSIONS:
                assert post(rest, requests.compressed(good, encoding)).status_code == 200
    statuses: Counter[int] = Counter()
    for seed in range(inputs):
        response = post(rest, requests.bad_post(seed))
        statuses[response.status_code] += 1
        if response.status_code != 200:
            check_rejection(response, seed)
    report(f"{inputs} bodies: {dict(sorted(statuses.items()))}")
    assert statuses[200]
    assert statuses[400] > statuses[200]


@pytest.mark.parametrize("inputs", AMOUNTS)
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_bad_messages(method: str, inputs: int, channel: grpc.Channel, report: Report) -> None:
    infer = {"ModelInfer": infer_alone, "ModelStreamInfer": infer_in_stream}[method]
    for good in GOOD:
        for raw in (True, False):
            assert infer(channel, good.message(raw=raw).SerializeToString()) == ("ok", "")
    statuses: Counter[str] = Counter()
    for seed in range(inputs):
        status, message = infer(channel, requests.bad_message(seed))
        statuses[status] += 1
        assert status in {"ok", "error_message", *CODES}, (seed, status, message)
        assert (status == "ok") == (not message), (seed, status)
    report(f"{inputs} messages to {method}: {dict(statuses)}")
    assert statuses["ok"]
    assert statuses["INVALID_ARGUMENT"] + statuses["error_message"] > statuses["ok"]


def infer_alone(channel: grpc.Channel, data: bytes) -> Verdict:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/ModelInfer")
    try:
        pb.ModelInferResponse.FromString(call(data, timeout=PATIENCE_S))
    except grpc.RpcError as error:
        return rejected(error)
    return "ok", ""


def infer_in_stream(channel: grpc.Channel, data: bytes) -> Verdict:
    """Sends the message between two good ones, whose responses must not change."""
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    good = GOOD[0].message(raw=True)
    good.id = "a neighbor"
    neighbor = good.SerializeToString()
    try:
        received = list(call(iter([neighbor, data, neighbor]), timeout=PATIENCE_S))
    except grpc.RpcError as error:
        return rejected(error)
    responses = [pb.ModelStreamInferResponse.FromString(response) for response in received]
    (other,) = [found for found in responses if found.error_message or found.infer_response.id != good.id]
    assert len(responses) == 3
    return ("error_message", other.error_message) if other.error_message else ("ok", "")


def rejected(error: grpc.RpcError) -> Verdict:
    """Returns the verdict of an error, which must be the service's own."""
    call = cast("grpc.Call", error)
    trailing = dict(call.trailing_metadata() or ())
    assert trailing.get("electra-error-code"), (call.code(), call.details())
    return call.code().name, str(call.details())


def rewritten(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol's document with the changes that a test needs.

    - Paths have `{MODEL_NAME}` instead of `${MODEL_NAME}`, which OpenAPI has not, and likewise the version.
    - Names and versions are one that exists and one that does not.
    - Each path with a version exists without it too, as the protocol's text says.
    - Requests of models, and the health routes, may respond with other statuses than 200 and 400, with the same form.
    """
    made = copy.deepcopy(document)
    made["paths"] = {}
    schemas = {"MODEL_NAME": {"enum": [DEMO_ID, "absent"]}, "MODEL_VERSION": {"enum": ["1", "2"]}}
    error = {"$ref": "#/components/schemas/metadata_model_error_response"}
    for path, item in copy.deepcopy(document["paths"]).items():
        for parameter in item.get("parameters", ()):
            parameter["schema"] |= schemas[parameter["name"]]
        for operation in (item[method] for method in ("get", "post") if method in item):
            for status in ("404", "413", "503", "504") if "MODEL_NAME" in path else ():
                operation["responses"][status] = {
                    "description": "rejected",
                    "content": {"application/json": {"schema": error}},
                }
        renamed = path.replace("${", "{")
        made["paths"][renamed] = item
        if "/versions/" in renamed:
            versionless = copy.deepcopy(item)
            versionless["parameters"] = [p for p in item["parameters"] if p["name"] != "MODEL_VERSION"]
            for method in ("get", "post"):
                if method in versionless:
                    versionless[method]["operationId"] += "-versionless"
            made["paths"][renamed.replace("/versions/{MODEL_VERSION}", "")] = versionless
    return made


@pytest.mark.parametrize("inputs", AMOUNTS)
def test_the_protocols_document_holds(inputs: int, rest: httpx.Client, report: Report) -> None:
    """Schemathesis sends what the protocol's own document allows; every response conforms to it."""
    import schemathesis
    from schemathesis import checks
    from schemathesis.core.result import Ok

    schema = schemathesis.openapi.from_dict(rewritten(yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))))
    promised = checks.CHECKS.get_by_names(
        ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    )
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    statuses: Counter[str] = Counter()

    def send(case: Any) -> int:
        response = case.call(base_url=str(rest.base_url), timeout=PATIENCE_S)
        statuses[f"{case.operation.method.upper()} {response.status_code}"] += 1
        case.validate_response(response, checks=promised)
        if response.status_code != 200:
            assert isinstance(response.json()["error"], str)
        status: int = response.status_code
        return status

    for operation in operations:
        for good in GOOD if operation.method == "post" else ():
            document = good.document | {"parameters": {}}  # the document knows no binary tensors
            named = {p.name: DEMO_ID if p.name == "MODEL_NAME" else "1" for p in operation.path_parameters}
            assert send(operation.Case(path_parameters=named, body=document, media_type="application/json")) == 200

        @many_examples(max(inputs // len(operations), 20), derandomize=inputs == SHORT)
        @given(operation.as_strategy())
        def check(case: Any) -> None:
            assert send(case) in {200, *STATUSES}

        check()
    report(f"{sum(statuses.values())} requests by the document, over {len(operations)} operations: {dict(statuses)}")
    assert any(status.endswith("200") for status in statuses)
