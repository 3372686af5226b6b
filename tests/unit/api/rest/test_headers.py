from __future__ import annotations

import time

import pytest
from starlette.datastructures import Headers

from electra_serve.api.rest.headers import deadline_of, headers_of, timeout_s
from electra_serve.api.rest.protocol import ARRIVED
from electra_serve.errors import MalformedRequest


def test_nothing_said_means_no_deadline() -> None:
    assert timeout_s(Headers({})) is None


@pytest.mark.parametrize(("value", "expected"), [("1", 0.001), ("1500", 1.5), ("999999999", 999999.999)])
def test_timeout_is_given_in_milliseconds(value: str, expected: float) -> None:
    assert timeout_s(Headers({"x-request-timeout-ms": value})) == expected


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "1e3", "007", " 5", "soon", "٣", "1000000000", "9" * 5000])
def test_timeout_rejects_all_else(value: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        timeout_s(Headers(raw=[(b"x-request-timeout-ms", value.encode())]))
    assert caught.value.field == "x-request-timeout-ms"
    assert "9999999999" not in caught.value.message


@pytest.mark.parametrize(
    ("own", "envoys", "expected"),
    [(None, "250", 0.25), ("100", "250", 0.1), ("250", "100", 0.1), ("250", "soon", 0.25), (None, "", None)],
)
def test_the_lesser_of_the_callers_and_the_proxys_timeout_holds(
    own: str | None, envoys: str, expected: float | None
) -> None:
    headers = {"x-envoy-expected-rq-timeout-ms": envoys} | ({} if own is None else {"x-request-timeout-ms": own})
    assert timeout_s(Headers(headers)) == expected


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "soon", "٣", "1000000000", "9" * 5000])
def test_what_a_proxy_says_wrong_is_passed_over(value: str) -> None:
    assert timeout_s(Headers(raw=[(b"x-envoy-expected-rq-timeout-ms", value.encode())])) is None


def test_a_repeated_header_is_one_value() -> None:
    lines = [(b"x-api-key", b"a"), (b"host", b"x"), (b"x-api-key", b"b"), (b"x-priority", b"low")]
    assert headers_of({"headers": lines}) == {"x-api-key": "a, b", "host": "x", "x-priority": "low"}


def test_headers_are_read_once_for_each_request() -> None:
    scope = {"headers": [(b"host", b"x")]}
    assert headers_of(scope) is headers_of(scope)


def test_many_repetitions_are_joined_in_little_time() -> None:
    assert len(headers_of({"headers": [(b"a", b"")] * 100_000})["a"]) == 2 * 99_999


@pytest.mark.parametrize("name", [b"x-request-timeout-ms", b"x-envoy-expected-rq-timeout-ms"])
def test_the_time_runs_from_the_first_byte(name: bytes) -> None:
    deadline = deadline_of({"headers": [(name, b"5000")], "state": {ARRIVED: time.monotonic() - 4}})
    assert deadline is not None
    assert 0 < deadline.remaining_s() <= 1
    passed = deadline_of({"headers": [(name, b"1000")], "state": {ARRIVED: time.monotonic() - 4}})
    assert passed is not None
    assert passed.remaining_s() == 0


def test_without_a_timeout_there_is_no_deadline() -> None:
    assert deadline_of({"headers": [], "state": {ARRIVED: 0.0}}) is None
