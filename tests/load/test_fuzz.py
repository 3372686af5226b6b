"""Thousands of generated requests: both transports reject them alike, as errors of the client.

The short form runs on the stand-in, the long one (`make fuzz`) on the real service.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.load.http_connection import post_request
from benchmarks.stand_in.script import Script
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.inference import open_inference_grpc_pb2 as oip
from electra_serve.tensors import Output
from tests.contract import oip_grpc, read
from tests.contract.outcome import Outcome, Success
from tests.contract.query import Query, message, to_json, to_message
from tests.contract.sides import SERVICE
from tests.integration.process import ServiceProcess, start
from tests.load.conftest import Report
from tests.load.gauges import wait_at_rest
from tests.load.mutations import mutated
from tests.load.queries import queries
from tests.load.stand_in import stand_in

SHORT: Final = 150
LONG: Final = 10_000
PATIENCE_S: Final = 30.0
SCRIPT: Final = Script(batch_s=0.0, position_s=0.0000001, faults=False)
ONEOF: Final = "input"
"""Name in gRPC of ids or texts; JSON has none."""
SERVERS_FAULTS: Final = frozenset({500, 502, 503})
"""Without 504: a generated header may set a deadline of a millisecond."""
CLIENTS_FAULTS: Final = {"malformed_request", "invalid_input", "payload_too_large", "model_not_found"}
CLIENTS_STATUSES: Final = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
SEEDS: Final = (
    Query(token_ids=[[1, 2, 3], [4]], segment_ids=[[0, 0, 1], [0]], padding_mask=[[1, 1, 0], [1]], model=None),
    Query(token_ids=[[7] * 40] * 4, model="electra_demo", outputs=[Output.MEAN, Output.CLS], truncate=True),
    Query(text=["Hello, world!", ("a pair", "of texts")], model=None, outputs=[Output.POOLED]),
)

OIP_SEEDS: Final = (
    SEEDS[0].of("electra_demo"),
    SEEDS[1],
    Query(text=["Hello, world!", "a text"], model="electra_demo", outputs=[Output.POOLED]),
    Query(text=[("a pair", "of texts")], model="electra_demo", outputs=[Output.SEQUENCE]),
)

AMOUNTS: Final = [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], ServiceProcess]]:
    """Returns the real service or its stand-in, each started when first asked for."""
    with ExitStack() as running:
        yield cache(lambda real: running.enter_context(_service(tmp_path_factory.mktemp("fuzz"), real=real)))


@pytest.fixture
def process(request: pytest.FixtureRequest, services: Callable[[bool], ServiceProcess]) -> Iterator[ServiceProcess]:
    """The service; checks afterwards that it is idle, ready and logged no error."""
    started = services(request.node.callspec.params["inputs"] == LONG)
    yield started
    wait_at_rest(started)
    assert started.status("/readyz") == 200
    assert started.complaints == []
    assert [event for event in started.events if event["level"] in {"error", "critical"}] == []


@contextmanager
def _service(folder: Path, *, real: bool) -> Iterator[ServiceProcess]:
    if not real:
        with stand_in(folder, SCRIPT, "--log.requests=false") as process:
            yield process
        return
    with start(folder, "--log.format=json", "--log.requests=false") as process:
        process.wait_ready()
        yield process


@pytest.fixture
def rest(process: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=process.url, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def channel(process: ServiceProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(process.target) as connected:
        yield connected


def many_examples(inputs: int, *, derandomize: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Sets the number of hypothesis' examples, which are the same in each run of the short form."""
    return settings(
        max_examples=inputs,
        deadline=None,
        derandomize=derandomize or inputs == SHORT,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("inputs", AMOUNTS)
def test_both_transports_give_the_same_verdict(
    inputs: int, rest: httpx.Client, channel: grpc.Channel, report: Report
) -> None:
    verdicts: Counter[str] = Counter()

    @many_examples(inputs)
    @given(queries)
    def check(query: Query) -> None:
        over_rest, over_grpc = _post(rest, to_json(query).data), _encode(channel, to_message(query).data)
        verdicts[_code(over_rest)] += 1
        assert _verdict(over_rest) == _verdict(over_grpc)
        assert _code(over_rest) in CLIENTS_FAULTS | {"ok"}
        _check_same_numbers(over_rest, over_grpc)

    check()
    report(f"{sum(verdicts.values())} requests, the same verdict on both transports: {dict(verdicts)}")


@pytest.mark.parametrize("inputs", AMOUNTS)
def test_mutated_json(inputs: int, rest: httpx.Client, report: Report) -> None:
    codes: Counter[str] = Counter()
    for seed in range(inputs):
        outcome = _post(rest, mutated(to_json(SEEDS[seed % len(SEEDS)]).data, seed))
        codes[_code(outcome)] += 1
        assert _code(outcome) in CLIENTS_FAULTS | {"ok"}, (seed, outcome)
    report(f"{inputs} mutated bodies: {dict(codes)}")


@pytest.mark.parametrize("inputs", AMOUNTS)
@pytest.mark.parametrize("method", ["Encode", "EncodeStream"])
def test_mutated_messages(method: str, inputs: int, channel: grpc.Channel, report: Report) -> None:
    codes: Counter[str] = Counter()
    for seed in range(inputs):
        good = as_message(SEEDS[seed % len(SEEDS)])
        if method == "Encode":
            outcome = _encode(channel, mutated(good.SerializeToString(), seed))
        else:
            in_stream = pb.EncodeStreamRequest(request=good)
            outcome = _encode_in_stream(channel, mutated(in_stream.SerializeToString(), seed))
        codes[_code(outcome)] += 1
        assert _code(outcome) in CLIENTS_FAULTS | {"ok"}, (seed, outcome)
        assert isinstance(outcome, Success) or outcome.status in {None, *CLIENTS_STATUSES}, (seed, outcome)
    report(f"{inputs} mutated messages to {method}: {dict(codes)}")


@pytest.mark.parametrize("inputs", AMOUNTS)
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_mutated_inference_messages(method: str, inputs: int, raw: bool, channel: grpc.Channel, report: Report) -> None:
    codes: Counter[str] = Counter()
    for seed in range(inputs):
        good = oip_grpc.message(OIP_SEEDS[seed % len(OIP_SEEDS)], raw=raw)
        code = _infer(channel, method, mutated(good.SerializeToString(), seed))
        codes[code] += 1
        assert code in CLIENTS_FAULTS | {"ok"}, (seed, code)
    report(f"{inputs} mutated messages to {method}: {dict(codes)}")


@pytest.mark.parametrize("inputs", AMOUNTS)
def test_mutated_http(inputs: int, process: ServiceProcess, report: Report) -> None:
    """Mutates whole requests with their heads; no response is a server error."""
    body = to_json(SEEDS[0]).data
    statuses: Counter[str] = Counter()
    for seed in range(inputs):
        with socket.create_connection(("127.0.0.1", process.rest_port), timeout=PATIENCE_S) as connection:
            connection.sendall(mutated(post_request(body), seed))
            connection.shutdown(socket.SHUT_WR)
            statuses[_status(connection)] += 1
    report(f"{inputs} mutated HTTP requests: {dict(statuses)}")
    assert not [status for status in statuses if status.startswith("5")]


@pytest.mark.parametrize("inputs", AMOUNTS)
def test_openapi_document_holds(inputs: int, rest: httpx.Client, report: Report) -> None:
    """Schemathesis sends what the document allows; every response conforms to the document."""
    import schemathesis
    from schemathesis import checks
    from schemathesis.core.result import Ok

    schema = schemathesis.openapi.from_dict(rest.get("/openapi.json").json())
    promised = checks.CHECKS.get_by_names(
        ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    )
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    statuses: Counter[int] = Counter()
    for operation in operations:

        @many_examples(max(inputs // len(operations), 20))
        @given(operation.as_strategy())
        def check(case: Any) -> None:
            answer = case.call(base_url=str(rest.base_url), timeout=PATIENCE_S)
            statuses[answer.status_code] += 1
            assert answer.status_code not in SERVERS_FAULTS
            case.validate_response(answer, checks=promised)

        check()
    report(f"{sum(statuses.values())} requests by the document, over {len(operations)} operations: {dict(statuses)}")


def as_message(query: Query) -> pb.EncodeRequest:
    """Makes a message with the id that a stream's requests need."""
    made = message(query)
    made.request_id = "r1"
    return made


def _post(client: httpx.Client, body: bytes) -> Outcome:
    return read.response(client.post("/v1/encode", content=body, headers={"content-type": "application/json"}))


def _encode(channel: grpc.Channel, data: bytes) -> Outcome:
    encode: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/Encode")
    try:
        return read.message(encode(data, timeout=PATIENCE_S))
    except grpc.RpcError as error:
        return read.rpc_error(cast("grpc.aio.AioRpcError", error))


def _encode_in_stream(channel: grpc.Channel, data: bytes) -> Outcome:
    encode: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"{SERVICE}/EncodeStream")
    try:
        (response,) = encode(iter([data]), timeout=PATIENCE_S)
    except grpc.RpcError as error:
        return read.rpc_error(cast("grpc.aio.AioRpcError", error))
    return read.stream_response(response)


def _infer(channel: grpc.Channel, method: str, data: bytes) -> str:
    """Returns the code of the response; mutations may change which tensors a response has."""
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"{oip_grpc.SERVICE}/{method}")
    try:
        (response,) = call(iter([data]), timeout=PATIENCE_S)
    except grpc.RpcError as error:
        return read.rpc_error(cast("grpc.aio.AioRpcError", error)).code
    if method == "ModelInfer":
        assert oip.ModelInferResponse.FromString(response).model_name
        return "ok"
    received = oip.ModelStreamInferResponse.FromString(response)
    error_code = received.infer_response.parameters["electra-error-code"].string_param
    return error_code if received.error_message else "ok"


def _code(outcome: Outcome) -> str:
    return "ok" if isinstance(outcome, Success) else outcome.code


def _verdict(outcome: Outcome) -> tuple[object, ...]:
    """Everything that must be equal, without the numbers."""
    if isinstance(outcome, Success):
        return ("ok", outcome.model, outcome.sequences, outcome.tokens, *(outcome.truncated or ()))
    return (outcome.code, None if outcome.field == ONEOF else outcome.field)


def _check_same_numbers(one: Outcome, other: Outcome) -> None:
    if isinstance(one, Success) and isinstance(other, Success):
        assert one.outputs.keys() == other.outputs.keys()
        for output, arrays in one.outputs.items():
            for ours, theirs in zip(arrays, other.outputs[output], strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def _status(connection: socket.socket) -> str:
    """Returns the status of the response; "closed" if there is none."""
    try:
        return connection.recv(4096)[9:12].decode() or "closed"
    except ConnectionResetError:
        return "closed"
