"""Bytes that are no message, messages with unknown fields, and messages with too many fields."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.grpc.parsing import (
    MAX_SMALL_BYTES,
    cut_names,
    parse,
    parse_small,
    reject_bulk,
    reject_unknown_fields,
)
from electra_serve.errors import MalformedRequest, PayloadTooLarge
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from tests.unit.api.grpc.messages import UNKNOWN_FIELD, request


def test_a_valid_message_is_parsed() -> None:
    message = request([1, 2], request_id="r")
    assert parse(pb.EncodeRequest, message.SerializeToString()) == message


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x0a\xff", id="truncated"),
        pytest.param(b"\x0a\x02\xff\xfe", id="not UTF-8"),
        pytest.param(b"\x0b" * 500, id="nested too deep"),
        pytest.param(UNKNOWN_FIELD, id="unknown field"),
        pytest.param(b"\x10\x01", id="known field of another type"),
    ],
)
def test_what_is_not_a_message_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse(pb.EncodeRequest, data)


def test_an_unknown_field_is_named_by_its_number_next_to_the_known_ones() -> None:
    with pytest.raises(MalformedRequest, match=r"fields name = 1; received number 31"):
        parse(pb.GetModelRequest, UNKNOWN_FIELD)
    with pytest.raises(MalformedRequest, match=r"fields none; received number 31"):
        reject_unknown_fields(pb.ListModelsRequest.FromString(UNKNOWN_FIELD))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xfb\x01\xfc\x01" * 1_000_000, id="whole"),
        pytest.param(b"\xfb\x01" * 1_000_000, id="without an end"),
        pytest.param(b"\xfc\x01" * 1_000_000, id="without a beginning"),
        pytest.param(b"\x1a\x80\x01" + b"\xfb\x01\xfc\x01" * 32, id="in a message"),
    ],
)
def test_groups_are_malformed_before_they_are_parsed(data: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"no groups; received number 31"):
        parse(pb.EncodeRequest, data)


def test_packed_numbers_count_in_part() -> None:
    def shape(numbers: int) -> bytes:
        return pb.Tensor(shape=[1] * numbers).SerializeToString()

    reject_bulk(pb.Tensor, shape(16 * 63 + 15), 64)
    with pytest.raises(PayloadTooLarge):
        reject_bulk(pb.Tensor, shape(16 * 64), 64)


def test_zeros_are_no_message_and_are_not_walked_through() -> None:
    with pytest.raises(MalformedRequest, match="4000000 bytes that are not"):
        parse(pb.EncodeRequest, bytes(4_000_000))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    try:
        message = parse(pb.EncodeRequest, data)
    except MalformedRequest:
        return
    assert pb.EncodeRequest.FromString(message.SerializeToString()) == message


def tensors(count: int) -> bytes:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_INT32, shape=[1], data=b"1234")
    return pb.EncodeRequest(tokens=pb.TokenInput(token_ids=[tensor] * count)).SerializeToString()


def test_fields_are_counted_at_every_depth_and_from_both_sides() -> None:
    # `tokens`, and for each tensor itself, its type, its shape and its bytes.
    reject_bulk(pb.EncodeRequest, tensors(5), 1 + 5 * 4)
    with pytest.raises(PayloadTooLarge, match="at most 20 fields"):
        reject_bulk(pb.EncodeRequest, tensors(5), 20)


def test_unknown_and_empty_fields_count() -> None:
    unknown = b"\x98\x06\x01"  # number 99, the value 1
    reject_bulk(pb.ListModelsRequest, unknown * 64, 64)
    with pytest.raises(PayloadTooLarge):
        reject_bulk(pb.ListModelsRequest, unknown * 1_000_000, 64)
    with pytest.raises(PayloadTooLarge):
        reject_bulk(pb.TokenInput, b"\x0a\x00" * 1_000_000, 64)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_left_to_the_parser(data: bytes) -> None:
    with suppress(MalformedRequest):  # a group
        reject_bulk(pb.EncodeRequest, data, 10_000)


@given(st.lists(st.text(max_size=20), max_size=10), st.text(max_size=5))
def test_any_message_has_the_fields_it_was_given(texts: list[str], model: str) -> None:
    message = pb.EncodeRequest(model=model, text=pb.TextInput(texts=[pb.Text(first=text) for text in texts]))
    fields = bool(model) + 1 + len(texts) + sum(map(bool, texts))
    data = message.SerializeToString()
    reject_bulk(pb.EncodeRequest, data, fields)
    with pytest.raises(PayloadTooLarge):
        reject_bulk(pb.EncodeRequest, data, fields - 1)


def test_long_names_are_cut_and_texts_are_not() -> None:
    text = pb.TextInput(texts=[pb.Text(first="t" * 1000)])
    request = pb.EncodeRequest(model="é" * 1000, request_id="i" * 1000, text=text)
    message = cut_names(pb.EncodeStreamRequest(request=request)).request
    assert (message.model, message.request_id) == ("é" * 129, "i" * 129)
    assert message.text == request.text
    reranked = pb.RerankRequest(model="m" * 1000, query="q" * 1000, documents=["d" * 1000])
    cut = cut_names(pb.RerankRequest.FromString(reranked.SerializeToString()))
    assert (cut.model, cut.query, cut.documents) == ("m" * 129, reranked.query, reranked.documents)


def test_a_small_message_is_parsed_leniently_and_a_large_one_is_not_parsed() -> None:
    unknown = b"\x78\x01"
    assert parse_small(pb.GetModelRequest, pb.GetModelRequest(name="m").SerializeToString() + unknown).name == "m"
    with pytest.raises(MalformedRequest):
        parse_small(pb.GetModelRequest, b"\xff")
    with pytest.raises(PayloadTooLarge, match=f"at most {MAX_SMALL_BYTES} bytes"):
        parse_small(pb.GetModelRequest, unknown * MAX_SMALL_BYTES)
