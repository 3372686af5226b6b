from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.api.rest.request_headers import priority, timeout_s
from service.errors import MalformedRequest
from service.inference import Priority


def test_nothing_said_means_no_deadline_and_normal_priority() -> None:
    assert timeout_s(Headers({})) is None
    assert priority(Headers({})) is Priority.NORMAL


@pytest.mark.parametrize(("value", "expected"), [("1", 0.001), ("1500", 1.5), ("999999999", 999999.999)])
def test_timeout_is_told_in_milliseconds(value: str, expected: float) -> None:
    assert timeout_s(Headers({"x-request-timeout-ms": value})) == expected


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "1e3", "007", " 5", "soon", "٣", "1000000000", "9" * 5000])
def test_timeout_refuses_all_else(value: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        timeout_s(Headers(raw=[(b"x-request-timeout-ms", value.encode())]))
    assert caught.value.field == "x-request-timeout-ms"
    assert "9999999999" not in caught.value.message


@pytest.mark.parametrize("level", Priority)
def test_priority_goes_by_name(level: Priority) -> None:
    assert priority(Headers({"x-priority": level.name.lower()})) is level


@given(st.text(alphabet=st.characters(max_codepoint=255)).filter(lambda text: text not in {"high", "normal", "low"}))
def test_priority_refuses_all_else(value: str) -> None:
    with pytest.raises(MalformedRequest, match="one of high, normal, low; received something else") as caught:
        priority(Headers({"x-priority": value}))
    assert caught.value.field == "x-priority"
