"""Part 8: the Open Inference Protocol against the native API, with an engine that computes nothing.

The null service runs on one core and the load generator on another. All cases are loaded in turn, round after round,
and ratios are of cases in the same round. Requests are those of tritonclient: raw contents over gRPC, and over REST
either JSON alone or binary tensors in both directions.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from benchmarks.fleet import ROOT, RunningService
from benchmarks.load.clients import ENCODE_METHOD
from benchmarks.load.closed_loop import LoadPlan, Payload, background_load, payloads_of, uniform_body
from benchmarks.load.http_connection import post_request
from benchmarks.measurements import Findings
from benchmarks.null_service import NAME
from benchmarks.overhead import LOAD_CORE, start
from benchmarks.sizes import Effort
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb

SECONDS: Final = 2.0
SECONDS_OF_LARGE: Final = 4.0
"""One response with every position as JSON takes up to a second."""
CONNECTIONS: Final = 8
INFER_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
INFER_PATH: Final = f"/v2/models/{NAME}/infer"
FIGURES: Final = ("requests_per_s", "sequences_per_s", "server_cpu_us", "p50_ms", "generator_cpu")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Case:
    """One form of requests of one size.

    Attributes:
        api: Name in the report; a key of `BUILDERS`.
        clients: Number of requests in flight.
        rows: Sequences in each request.
        length: Ids of each sequence.
        output: Requested output.
    """

    api: str
    clients: int
    rows: int = 1
    length: int = 32
    output: str = "pooled_output"

    @property
    def labels(self) -> dict[str, str | int]:
        """Labels in findings."""
        size = f"{self.rows}x{self.length}"
        return {"api": self.api, "clients": self.clients, "size": size, "output": self.output}

    @property
    def is_grpc(self) -> bool:
        """It is a gRPC call."""
        return "gRPC" in self.api


NATIVE_GRPC: Final = "native gRPC"
NATIVE_JSON: Final = "native REST"
NATIVE_BASE64: Final = "native REST, base64"
OIP_RAW: Final = "OIP gRPC, raw"
OIP_TYPED: Final = "OIP gRPC, typed"
OIP_JSON: Final = "OIP REST, JSON"
OIP_BINARY: Final = "OIP REST, binary"

COUNTERPARTS: Final[Mapping[str, str]] = {
    OIP_RAW: NATIVE_GRPC,
    OIP_TYPED: NATIVE_GRPC,
    OIP_JSON: NATIVE_JSON,
    OIP_BINARY: NATIVE_BASE64,
}
"""Forms of the protocol → the native form whose CPU time they are compared with."""
SMALL: Final = tuple(
    Case(api, clients) for clients in (64, 1) for pair in COUNTERPARTS.items() for api in reversed(pair)
)
LARGE: Final = tuple(
    Case(api, 8, rows=32, length=128, output=output)
    for output in ("pooled_output", "sequence_output")
    for api in (OIP_JSON, OIP_BINARY)
)
CASES: Final = tuple(dict.fromkeys((*SMALL, *LARGE)))


def measure_oip(effort: Effort) -> Findings:
    """Loads the null service with every case in turn."""
    os.sched_setaffinity(0, {LOAD_CORE})  # the generator's processes inherit it; the service has a core of its own
    findings = Findings("oip", effort.quick)
    found: dict[Case, list[dict[str, float]]] = {case: [] for case in CASES}
    with start("null", ROOT, ["benchmarks.null_service"]) as server:
        for turn in range(effort.rounds):
            log.info("round %d of %d", turn + 1, effort.rounds)
            for case in CASES:
                seconds = SECONDS_OF_LARGE if case in LARGE else SECONDS
                found[case].append(load(server, case, seconds * effort.load_factor))
    for case, rounds in found.items():
        for name in FIGURES:
            findings.add(name, [figures[name] for figures in rounds if figures[name] is not None], **case.labels)
    for case in SMALL:
        if native := COUNTERPARTS.get(case.api):
            ratios = _ratios(found[case], found[replace(case, api=native)], "server_cpu_us")
            findings.add("server_cpu_ratio", ratios, **case.labels, native=native)
    for case in LARGE:
        if case.api == OIP_BINARY:
            ratios = _ratios(found[case], found[replace(case, api=OIP_JSON)], "sequences_per_s")
            findings.add("binary_per_json", ratios, **case.labels)
    return findings


def load(server: RunningService, case: Case, seconds: float) -> dict[str, float]:
    """Loads the service with one case, from a process of its own; returns the figures."""
    plan = LoadPlan(
        transport="grpc" if case.is_grpc else "rest",
        port=server.ports["grpc" if case.is_grpc else "rest"],
        clients=case.clients,
        connections=min(CONNECTIONS, case.clients),
        warm_up_s=min(0.7, seconds / 3),
        seconds=seconds,
        server_pid=server.pid,
        method=ENCODE_METHOD if case.api == NATIVE_GRPC else INFER_METHOD,
    )
    with background_load(plan, [Payload(BUILDERS[case.api](case), case.rows)]) as loading:
        figures = loading.result()
    if figures["errors"]:
        raise RuntimeError(f"{case}: {figures['errors']}")
    return {name: figures[name] for name in FIGURES}


def _ratios(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [one[name] / other[name] for one, other in zip(ours, theirs, strict=True) if other[name]]


def _native(transport: str, encoding_format: str = "float") -> Callable[[Case], bytes]:
    def build(case: Case) -> bytes:
        fields: dict[str, Any] = {"outputs": [case.output]}
        if transport == "rest":
            fields["encoding_format"] = encoding_format
        body = uniform_body(case.rows, case.length, **fields)
        return payloads_of([body], transport)[0].data

    return build


def _ids(case: Case) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The ids of `uniform_body`."""
    ids: list[list[int]] = json.loads(uniform_body(case.rows, case.length))["token_ids"]
    return np.array(ids, "<i8")


def _header(case: Case, **members: object) -> dict[str, object]:
    return {"name": "token_ids", "shape": [case.rows, case.length], "datatype": "INT64", **members}


def _json(case: Case) -> bytes:
    inputs = [_header(case, data=_ids(case).flatten().tolist())]
    outputs = [{"name": case.output, "parameters": {"binary_data": False}}]
    body = json.dumps({"inputs": inputs, "outputs": outputs}, separators=(",", ":")).encode()
    return post_request(body, INFER_PATH)


def _binary(case: Case) -> bytes:
    data = _ids(case).tobytes()
    inputs = [_header(case, parameters={"binary_data_size": len(data)})]
    outputs = [{"name": case.output, "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}, separators=(",", ":")).encode()
    length = {"inference-header-content-length": str(len(head))}
    return post_request(head + data, INFER_PATH, length, content_type="application/octet-stream")


def _message(case: Case, *, raw: bool) -> bytes:
    ids = _ids(case)
    request = pb.ModelInferRequest(model_name=NAME)
    tensor = request.inputs.add(name="token_ids", datatype="INT64", shape=ids.shape)
    request.outputs.add(name=case.output)
    if raw:
        request.raw_input_contents.append(ids.tobytes())
    else:
        tensor.contents.int64_contents.extend(ids.flatten().tolist())
    return request.SerializeToString()


BUILDERS: Final[Mapping[str, Callable[[Case], bytes]]] = {
    NATIVE_GRPC: _native("grpc"),
    NATIVE_JSON: _native("rest"),
    NATIVE_BASE64: _native("rest", "base64"),
    OIP_RAW: lambda case: _message(case, raw=True),
    OIP_TYPED: lambda case: _message(case, raw=False),
    OIP_JSON: _json,
    OIP_BINARY: _binary,
}
"""Name in the report → builder of a request, ready to be sent."""
