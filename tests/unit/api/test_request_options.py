"""`x-priority` and the proxy's timeout, as both transports read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.request_options import PRIORITY_NAMES, parse_priority, proxy_timeout_s
from electra_serve.errors import MalformedRequest
from electra_serve.serving.request_context import Priority


def test_nothing_said_means_normal() -> None:
    assert parse_priority(None) is Priority.NORMAL


@pytest.mark.parametrize("level", Priority)
def test_priority_goes_by_name(level: Priority) -> None:
    assert parse_priority(level.name.lower()) is level


@given(st.text().filter(lambda text: text not in PRIORITY_NAMES) | st.binary())
def test_all_else_is_rejected_and_not_repeated(value: str | bytes) -> None:
    with pytest.raises(MalformedRequest, match="one of high, normal, low; got another value") as caught:
        parse_priority(value)
    assert caught.value.field == "x-priority"


@pytest.mark.parametrize(("value", "expected"), [("1", 0.001), ("1500", 1.5), ("999999999", 999999.999)])
def test_the_proxy_timeout_is_in_milliseconds(value: str, expected: float) -> None:
    assert proxy_timeout_s({"x-envoy-expected-rq-timeout-ms": value}) == expected


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "soon", "٣", "1000000000", b"250"])
def test_a_malformed_proxy_timeout_is_ignored(value: str | bytes) -> None:
    assert proxy_timeout_s({"x-envoy-expected-rq-timeout-ms": value}) is None


def test_without_a_proxy_there_is_no_timeout() -> None:
    assert proxy_timeout_s({}) is None
