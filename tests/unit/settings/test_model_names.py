"""Names that a client can address a model by, and those that it cannot."""

from __future__ import annotations

import pytest
from pydantic_core import PydanticCustomError

from electra_serve.settings.model_names import MAX_NAME, check_model_name


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "text-embedding-3-small",
        "org/model",
        "a/b/reload",
        "...",
        "a..b",
        "a b?c#d%e%2F&+;=:@",
        "模型 é",
        "x" * MAX_NAME,
    ],
)
def test_a_name_that_can_be_encoded_is_kept(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", " a", "a ", "a\nb", "a\x00", "\x7f", "a\u202eb", "a\u200bb", "a\ud800", "a\u2028b", "x" * (MAX_NAME + 1)],
)
def test_a_name_that_cannot_be_printed_is_rejected(name: str) -> None:
    with pytest.raises(PydanticCustomError, match="must be 1 to 128 printable characters"):
        check_model_name(name)


@pytest.mark.parametrize("name", ["../x", "..", ".", "a/../b", "a/./b", "/a", "a/", "a//b", "/", "x/.."])
def test_a_name_that_urls_resolve_is_rejected(name: str) -> None:
    with pytest.raises(PydanticCustomError, match="must have no part that is empty"):
        check_model_name(name)
