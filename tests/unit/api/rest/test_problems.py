from __future__ import annotations

import http
import math

import orjson
import pytest

from electra_serve import errors
from electra_serve.api.rest.body import SlowBody
from electra_serve.api.rest.problems import PROBLEM_TYPES, problem_response
from electra_serve.api.rest.protocol import ConnectionsFull

# As the design has it, written out again: the table must not be checked against itself.
STATUSES = {
    errors.MalformedRequest: 400,
    SlowBody: 408,
    errors.UnsupportedMediaType: 415,
    errors.InvalidInput: 422,
    errors.PayloadTooLarge: 413,
    errors.Unauthenticated: 401,
    errors.ModelNotFound: 404,
    errors.ModelNotReady: 503,
    errors.ShuttingDown: 503,
    errors.Overloaded: 429,
    ConnectionsFull: 503,
    errors.DeadlineExceeded: 504,
    errors.Cancelled: 499,
    errors.EngineFailure: 500,
    errors.Unsupported: 501,
    errors.Conflict: 409,
    errors.ModelLoadFailed: 422,
    errors.InternalError: 500,
}


def subclasses(cls: type[errors.ServiceError]) -> set[type[errors.ServiceError]]:
    return {cls for child in cls.__subclasses__() for cls in (child, *subclasses(child))}


def test_every_error_has_its_kind() -> None:
    assert set(PROBLEM_TYPES) == subclasses(errors.ServiceError)
    assert {cls: kind.status for cls, kind in PROBLEM_TYPES.items()} == STATUSES


def test_every_status_but_one_is_registered() -> None:
    assert {kind.status for kind in PROBLEM_TYPES.values()} - set(http.HTTPStatus) == {499}


def test_all_members() -> None:
    error = errors.Overloaded("the queue takes 10; it is full", field="token_ids", retry_after_s=1.25)
    response = problem_response(error, "order-7")
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    assert orjson.loads(response.body) == {
        "type": "urn:problem-type:electra-serve:overloaded",
        "title": "Overloaded",
        "status": 429,
        "detail": "the queue takes 10; it is full",
        "code": "overloaded",
        "request_id": "order-7",
        "field": "token_ids",
        "retry_after_s": 1.25,
    }


def test_absent_members_are_left_out() -> None:
    response = problem_response(errors.InvalidInput("no"), "r")
    assert set(orjson.loads(response.body)) == {"type", "title", "status", "detail", "code", "request_id"}
    assert "retry-after" not in response.headers


@pytest.mark.parametrize(
    ("seconds", "header", "member"),
    [
        (0.0, "1", 0.0),
        (-3.0, "1", 0.0),
        (0.2, "1", 0.2),
        (1.0, "1", 1.0),
        (1.01, "2", 1.01),
        (math.inf, "3600", 3600.0),
    ],
)
def test_retry_after_is_whole_seconds_from_one(seconds: float, header: str, member: float) -> None:
    response = problem_response(errors.Overloaded("full", retry_after_s=seconds), "r")
    assert response.headers["retry-after"] == header
    assert orjson.loads(response.body)["retry_after_s"] == member


@pytest.mark.parametrize("cls", [errors.Overloaded, errors.ModelNotReady, errors.ShuttingDown])
def test_what_passes_says_when_to_retry_by_default(cls: type[errors.ServiceError]) -> None:
    assert problem_response(cls("later"), "r").headers["retry-after"] == "1"


@pytest.mark.parametrize("cls", [errors.EngineFailure, errors.InternalError])
def test_internal_faults_show_the_request_id_and_nothing_else(cls: type[errors.ServiceError]) -> None:
    response = problem_response(cls("CUDA error at 0xdeadbeef"), "order-7")
    assert orjson.loads(response.body)["detail"] == "the log has the rest under request id order-7"
    assert b"CUDA" not in response.body


def test_only_what_makes_a_connection_useless_closes_it() -> None:
    closing = [cls for cls in PROBLEM_TYPES if problem_response(cls("x"), "r").headers.get("connection") == "close"]
    assert closing == [SlowBody, ConnectionsFull]


def test_only_missing_credentials_are_challenged() -> None:
    challenged = {cls: problem_response(cls("x"), "r").headers.get("www-authenticate") for cls in PROBLEM_TYPES}
    assert {cls: challenge for cls, challenge in challenged.items() if challenge} == {errors.Unauthenticated: "Bearer"}
