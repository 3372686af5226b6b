"""The table of status codes: complete, and as designed."""

from __future__ import annotations

import grpc
import pytest

from electra_serve import errors
from electra_serve.api.grpc.status import STATUS, code_of, details, from_error, trailing_metadata

NAMES = {
    "MalformedRequest": "INVALID_ARGUMENT",
    "InvalidInput": "INVALID_ARGUMENT",
    "PayloadTooLarge": "RESOURCE_EXHAUSTED",
    "Unauthenticated": "UNAUTHENTICATED",
    "ModelNotFound": "NOT_FOUND",
    "ModelNotReady": "UNAVAILABLE",
    "ShuttingDown": "UNAVAILABLE",
    "Overloaded": "RESOURCE_EXHAUSTED",
    "UnsupportedMediaType": "UNIMPLEMENTED",
    "DeadlineExceeded": "DEADLINE_EXCEEDED",
    "Cancelled": "CANCELLED",
    "EngineFailure": "INTERNAL",
    "Conflict": "ABORTED",
    "ModelLoadFailed": "FAILED_PRECONDITION",
    "InternalError": "INTERNAL",
}
KINDS = [getattr(errors, name) for name in NAMES]


def test_the_table_names_every_error() -> None:
    own = {cls for cls in errors.ServiceError.__subclasses__() if cls.__module__ == errors.__name__}
    assert own | {errors.ServiceError} == set(STATUS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_has_the_status_of_the_design(kind: type[errors.ServiceError]) -> None:
    assert code_of(kind("no")) is grpc.StatusCode[NAMES[kind.__name__]]


def test_a_class_derived_from_one_in_the_table_has_its_status() -> None:
    class Narrower(errors.InvalidInput):
        pass

    assert code_of(Narrower("no")) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_has_code_and_request_and_temporary_errors_a_retry_delay(kind: type[errors.ServiceError]) -> None:
    metadata = dict(trailing_metadata(kind("no"), "r1"))
    passes = kind in {errors.ModelNotReady, errors.ShuttingDown, errors.Overloaded}
    assert metadata.pop("grpc-retry-pushback-ms", None) == ("1000" if passes else None)
    assert metadata == {"electra-error-code": kind.code, "x-request-id": "r1"}


@pytest.mark.parametrize(
    ("retry_after_s", "pushback_ms"), [(0.0, "0"), (0.0101, "11"), (2.5, "2500"), (-1.0, "0"), (1e9, "3600000")]
)
def test_pushback_is_whole_milliseconds_within_bounds(retry_after_s: float, pushback_ms: str) -> None:
    metadata = trailing_metadata(errors.Overloaded("full", retry_after_s=retry_after_s), "r1")
    assert dict(metadata)["grpc-retry-pushback-ms"] == pushback_ms


def test_metadata_names_the_field() -> None:
    metadata = dict(trailing_metadata(errors.InvalidInput("no", field="token_ids[3]"), "r1"))
    assert metadata["electra-error-field"] == "token_ids[3]"


@pytest.mark.parametrize("kind", KINDS)
def test_faults_of_ours_keep_their_text_to_themselves(kind: type[errors.ServiceError]) -> None:
    text = details(kind("the weights are at /secret"), "r1")
    if kind in {errors.EngineFailure, errors.InternalError}:
        assert text == "the server failed on this request; its log has the rest under request id r1"
    else:
        assert text == "the weights are at /secret"


def test_an_error_in_a_stream_has_the_same_fields() -> None:
    message = from_error(errors.Overloaded("full", field="token_ids", retry_after_s=2.25), "r1")
    assert (message.code, message.message, message.field) == ("overloaded", "full", "token_ids")
    assert (message.retry_after.seconds, message.retry_after.nanos) == (2, 250_000_000)
    assert not from_error(errors.InvalidInput("no"), "r1").HasField("retry_after")
