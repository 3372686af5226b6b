"""Bytes that are no message, and messages that say more than the .proto."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.grpc.parsing import parse, refuse_unknown_fields
from electra_serve.errors import MalformedRequest
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


def test_an_unknown_field_is_named_by_its_number_beside_the_known_ones() -> None:
    with pytest.raises(MalformedRequest, match=r"fields name = 1; received number 31"):
        parse(pb.GetModelRequest, UNKNOWN_FIELD)
    with pytest.raises(MalformedRequest, match=r"fields none; received number 31"):
        refuse_unknown_fields(pb.ListModelsRequest.FromString(UNKNOWN_FIELD))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    try:
        message = parse(pb.EncodeRequest, data)
    except MalformedRequest:
        return
    assert pb.EncodeRequest.FromString(message.SerializeToString()) == message
