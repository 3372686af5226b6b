"""Bodies that would cost far more than they say."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.rest.bulk import MAX_KEYS, refuse_bulk
from electra_serve.errors import MalformedRequest, PayloadTooLarge

MAX_SEQUENCES = 4
MAX_LISTS = 3 * (MAX_SEQUENCES + 1) + 1


def test_the_largest_request_passes() -> None:
    rows = [[1, 2]] * MAX_SEQUENCES
    body = {"token_ids": rows, "segment_ids": rows, "padding_mask": rows, "outputs": ["cls_output"]}
    refuse_bulk(orjson.dumps(body), MAX_SEQUENCES)
    pairs = {"text": [["a", "b"]] * MAX_SEQUENCES, "outputs": []}
    refuse_bulk(orjson.dumps(pairs), MAX_SEQUENCES)


def test_lists_from_both_sides() -> None:
    refuse_bulk(b"[]," * MAX_LISTS, MAX_SEQUENCES)
    with pytest.raises(PayloadTooLarge, match="4 sequences, 16 lists in all"):
        refuse_bulk(b"[]," * (MAX_LISTS + 1), MAX_SEQUENCES)


def test_deep_lists_are_no_request() -> None:
    with pytest.raises(MalformedRequest, match="two deep"):
        refuse_bulk(b"[" * 100_000, MAX_SEQUENCES)


@pytest.mark.parametrize("piece", [b"{", b'"k":1,'])
def test_members_from_both_sides(piece: bytes) -> None:
    refuse_bulk(piece * MAX_KEYS, MAX_SEQUENCES)
    with pytest.raises(MalformedRequest, match="at most 64 members"):
        refuse_bulk(piece * (MAX_KEYS + 1), MAX_SEQUENCES)


@given(st.text(alphabet='[{:\\"a\n', max_size=400))
def test_what_stands_in_strings_does_not_count(text: str) -> None:
    refuse_bulk(orjson.dumps({"text": [text, [text, text]]}), MAX_SEQUENCES)


@given(st.binary(max_size=300) | st.text(alphabet='[]{}:\\",', max_size=300).map(str.encode))
def test_only_bodies_with_many_brackets_or_colons_are_refused(body: bytes) -> None:
    few = body.count(b"[") <= MAX_LISTS and body.count(b"{") <= MAX_KEYS and body.count(b":") <= MAX_KEYS
    with contextlib.nullcontext() if few else contextlib.suppress(MalformedRequest, PayloadTooLarge):
        refuse_bulk(body, MAX_SEQUENCES)


def test_a_string_that_never_ends_is_passed_over_once() -> None:
    refuse_bulk(b'"' + b'\\"[' * 100_000, MAX_SEQUENCES)
