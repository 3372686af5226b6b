"""Fields are counted before anything is made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.grpc.wire import refuse_bulk
from electra_serve.errors import PayloadTooLarge
from electra_serve.proto.electra.v1 import encoder_pb2 as pb


def tensors(count: int) -> bytes:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_INT32, shape=[1], data=b"1234")
    return pb.EncodeRequest(tokens=pb.TokenInput(token_ids=[tensor] * count)).SerializeToString()


def test_fields_are_counted_at_every_depth_and_from_both_sides() -> None:
    # `tokens`, and for each tensor itself, its type, its shape and its bytes.
    refuse_bulk(pb.EncodeRequest, tensors(5), 1 + 5 * 4)
    with pytest.raises(PayloadTooLarge, match="at most 20 fields"):
        refuse_bulk(pb.EncodeRequest, tensors(5), 20)


def test_unknown_and_empty_fields_count() -> None:
    unknown = b"\x98\x06\x01"  # number 99, the value 1
    refuse_bulk(pb.ListModelsRequest, unknown * 64, 64)
    with pytest.raises(PayloadTooLarge):
        refuse_bulk(pb.ListModelsRequest, unknown * 1_000_000, 64)
    with pytest.raises(PayloadTooLarge):
        refuse_bulk(pb.TokenInput, b"\x0a\x00" * 1_000_000, 64)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_left_to_the_parser(data: bytes) -> None:
    refuse_bulk(pb.EncodeRequest, data, 10_000)


@given(st.lists(st.text(max_size=20), max_size=10), st.text(max_size=5))
def test_any_message_has_the_fields_it_was_given(texts: list[str], model: str) -> None:
    message = pb.EncodeRequest(model=model, text=pb.TextInput(texts=[pb.Text(first=text) for text in texts]))
    fields = bool(model) + 1 + len(texts) + sum(map(bool, texts))
    data = message.SerializeToString()
    refuse_bulk(pb.EncodeRequest, data, fields)
    with pytest.raises(PayloadTooLarge):
        refuse_bulk(pb.EncodeRequest, data, fields - 1)
