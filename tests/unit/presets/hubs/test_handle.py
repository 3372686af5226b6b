"""Handles: what is one, what it pins, and that none leads out of the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.errors import PresetError
from electra_serve.presets.hubs.cache import PresetCache
from electra_serve.presets.hubs.handle import Handle, parse_handle

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "handle", "pinned"),
    [
        ("kaggle://keras/electra/keras/small_en", Handle("kaggle", "keras/electra/keras/small_en"), False),
        ("kaggle://keras/electra/keras/small_en/2", Handle("kaggle", "keras/electra/keras/small_en", "2"), True),
        ("hf://google/electra-small.v1", Handle("hf", "google/electra-small.v1"), False),
        ("hf://google/electra@main", Handle("hf", "google/electra", "main"), False),
        ("hf://google/electra@refs/pr/1", Handle("hf", "google/electra", "refs/pr/1"), False),
        (f"hf://google/electra@{COMMIT}", Handle("hf", "google/electra", COMMIT), True),
        (f"hf://google/electra@{COMMIT[:7]}", Handle("hf", "google/electra", COMMIT[:7]), False),
    ],
)
def test_a_handle_is_read_and_written_the_same(text: str, handle: Handle, pinned: bool) -> None:
    assert parse_handle(text) == handle
    assert str(handle) == text
    assert handle.pinned is pinned


@pytest.mark.parametrize(
    "text",
    [
        "kaggle://keras/electra/small_en",
        "kaggle://keras/electra/pyTorch/small_en",
        "kaggle://keras/electra/keras/small_en/0",
        "kaggle://keras/electra/keras/../2",
        "hf://electra",
        "hf://google/electra/more",
        "hf://google/..",
        "hf://google/a..b",
        "hf://google/.electra",
        "hf://google/electra@",
        "hf://google/electra@../main",
        "hf://google/electra@main\n",
        "hf://google/ele ctra",
        "s3://bucket/key",
        "://",
        f"hf://google/{'x' * 400}",
    ],
)
def test_what_is_not_well_formed_is_rejected(text: str) -> None:
    with pytest.raises(PresetError, match=r"must be kaggle://org/model/keras/variant\[/version\] or hf://org/repo"):
        parse_handle(text)


@pytest.mark.parametrize("text", ["", "electra_demo", "./a/b", "C:/presets", "hf:org/repo"])
def test_what_has_no_scheme_is_no_handle(text: str) -> None:
    assert parse_handle(text) is None


@given(st.from_regex(r"(hf|kaggle)://[a-z./@-]{1,40}", fullmatch=True))
def test_no_handle_leads_out_of_the_cache(text: str) -> None:
    root = Path("/cache")
    try:
        handle = parse_handle(text)
    except PresetError:
        return
    assert handle is not None
    parts = PresetCache(root).folder(handle).relative_to(root).parts
    assert ".." not in parts
    assert "." not in parts


@pytest.mark.parametrize("revision", ["", "main", "../../etc", COMMIT[:-1], COMMIT.upper()])
def test_a_revision_of_a_hub_must_be_pinned(revision: str) -> None:
    with pytest.raises(PresetError, match="must return a version or a commit"):
        Handle("hf", "google/electra").at(revision)
