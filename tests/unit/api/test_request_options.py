"""`x-priority`, whichever transport it came by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.request_options import PRIORITY_NAMES, parse_priority
from electra_serve.errors import MalformedRequest
from electra_serve.serving.service import Priority


def test_nothing_said_means_normal() -> None:
    assert parse_priority(None) is Priority.NORMAL


@pytest.mark.parametrize("level", Priority)
def test_priority_goes_by_name(level: Priority) -> None:
    assert parse_priority(level.name.lower()) is level


@given(st.text().filter(lambda text: text not in PRIORITY_NAMES) | st.binary())
def test_all_else_is_refused_and_not_repeated(value: str | bytes) -> None:
    with pytest.raises(MalformedRequest, match="one of high, normal, low; received something else") as caught:
        parse_priority(value)
    assert caught.value.field == "x-priority"
