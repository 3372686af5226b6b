"""Reads each transport's responses into an `Outcome`; fails for one that breaks its protocol's form."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias, cast

import grpc
import httpx
import numpy as np
import orjson

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import to_floats
from electra_serve.tensors import POSITION_OUTPUTS, Float32Array, Output
from tests.contract.outcome import Outcome, Rejection, Success

Numbers: TypeAlias = "list[float] | list[list[float]]"

PROBLEM_MEMBERS: Final = {"type", "title", "status", "detail", "code", "request_id"}
OPTIONAL_MEMBERS: Final = {"field", "retry_after_s"}
STATUS_ONLY: Final = "(none: gRPC's own error)"
"""Code of a message that gRPC itself rejects, before any code of the service gets it."""


def response(received: httpx.Response) -> Outcome:
    """Reads an HTTP response."""
    assert received.headers["x-content-type-options"] == "nosniff"
    assert received.headers["x-request-id"]
    content = orjson.loads(received.content)
    if received.status_code == 200:
        assert received.headers["content-type"] == "application/json"
        return _json_success(content)
    return _problem(received, content)


def message(data: bytes) -> Success:
    """Reads an `EncodeResponse`."""
    return _pb_success(pb.EncodeResponse.FromString(data))


def stream_response(data: bytes) -> Outcome:
    """Reads an `EncodeStreamResponse`."""
    received = pb.EncodeStreamResponse.FromString(data)
    if received.WhichOneof("result") == "response":
        assert received.response.request_id == received.request_id
        return _pb_success(received.response)
    error = received.error
    return Rejection(
        code=error.code,
        status=None,
        message=error.message,
        field=error.field or None,
        retry_after_s=error.retry_after.ToNanoseconds() / 1e9 if error.HasField("retry_after") else None,
        request_id=received.request_id or None,
        raw=data,
    )


def rpc_error(error: grpc.aio.AioRpcError | grpc.Call) -> Rejection:
    """Reads a call that failed."""
    trailing = cast("Iterable[tuple[str, str]]", error.trailing_metadata() or ())
    return rejection(error.details() or "", dict(trailing), error.code().name)


def rejection(message: str, metadata: Mapping[str, str], status: str | None) -> Rejection:
    """Reads the text and the metadata of an error."""
    pushback_ms = metadata.get("grpc-retry-pushback-ms")
    return Rejection(
        code=metadata.get("electra-error-code", STATUS_ONLY),
        status=status,
        message=message,
        field=metadata.get("electra-error-field"),
        retry_after_s=None if pushback_ms is None else int(pushback_ms) / 1e3,
        request_id=metadata.get("x-request-id"),
        raw=f"{message} {metadata}".encode(),
    )


def _problem(received: httpx.Response, content: dict[str, object]) -> Rejection:
    assert received.headers["content-type"] == "application/problem+json"
    assert PROBLEM_MEMBERS <= content.keys() <= PROBLEM_MEMBERS | OPTIONAL_MEMBERS
    assert content["type"] == f"urn:problem-type:electra-serve:{content['code']}"
    assert content["status"] == received.status_code
    assert content["request_id"] == received.headers["x-request-id"]
    retry_after_s = cast("float | None", content.get("retry_after_s"))
    check_retry_after(received.headers.get("retry-after"), retry_after_s)
    return Rejection(
        code=str(content["code"]),
        status=received.status_code,
        message=str(content["detail"]),
        field=cast("str | None", content.get("field")),
        retry_after_s=retry_after_s,
        request_id=str(content["request_id"]),
        raw=received.content,
    )


def check_retry_after(header: str | None, retry_after_s: float | None) -> None:
    """Fails unless the header has the seconds of the body, rounded up."""
    assert (header is None) == (retry_after_s is None)
    if header is not None and retry_after_s is not None:
        assert max(1, retry_after_s) <= int(header) < max(1, retry_after_s) + 1


def _json_success(content: dict[str, object]) -> Success:
    usage = cast("dict[str, int]", content["usage"])
    return Success(
        model=str(content["model"]),
        outputs={
            output: [_array(row) for row in cast("Sequence[Numbers | dict[str, object]]", content[output])]
            for output in Output
            if output in content
        },
        sequences=usage["sequences"],
        tokens=usage["tokens"],
        truncated=cast("list[bool]", content["truncated"]),
    )


def _array(value: Numbers | dict[str, object]) -> Float32Array:
    if isinstance(value, list):
        return np.array(value, np.float32)
    assert value["dtype"] == "float32"
    data = base64.b64decode(cast("str", value["data"]), validate=True)
    return np.frombuffer(data, "<f4").reshape(cast("list[int]", value["shape"]))


def _pb_success(received: pb.EncodeResponse) -> Success:
    outputs: dict[Output, list[Float32Array]] = {}
    for output in POSITION_OUTPUTS:
        if rows := getattr(received, output.value):
            outputs[output] = [to_floats(tensor) for tensor in rows]
    for output in set(Output) - POSITION_OUTPUTS:
        if received.HasField(output.value):  # type: ignore[arg-type]  # the stub wants a literal
            outputs[output] = list(to_floats(getattr(received, output.value)))
    return Success(
        model=received.model,
        outputs=outputs,
        sequences=received.usage.sequences,
        tokens=received.usage.tokens,
        truncated=list(received.truncated),
    )
