"""What a request's message asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.grpc.decode import OUTPUTS, TRUNCATIONS, count, to_input, to_outputs, to_truncation
from electra_serve.api.grpc.parsing import parse
from electra_serve.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.tensors import DEFAULT_OUTPUTS, Output, TextInput, TokenInput, Truncation
from tests.unit.api.grpc.messages import UNKNOWN_FIELD, request, tensor, tokens


def test_absent_segments_and_mask_are_none() -> None:
    sequences = to_input(request([1, 2], [3]), 8)
    assert isinstance(sequences, TokenInput)
    assert [row.tolist() for row in sequences.token_ids] == [[1, 2], [3]]
    assert sequences.segment_ids is None
    assert sequences.padding_mask is None
    assert count(sequences) == 2


def test_segments_and_mask_are_taken() -> None:
    message = pb.TokenInput(token_ids=[tensor([7])], segment_ids=[tensor([1])], padding_mask=[tensor([0])])
    sequences = to_input(pb.EncodeRequest(tokens=message), 8)
    assert isinstance(sequences, TokenInput)
    assert sequences.segment_ids is not None
    assert sequences.padding_mask is not None
    assert (sequences.segment_ids[0].tolist(), sequences.padding_mask[0].tolist()) == ([1], [0])


def test_a_second_text_makes_a_pair_even_where_it_is_empty() -> None:
    message = pb.TextInput(texts=[pb.Text(first="a"), pb.Text(first="b", second="")])
    sequences = to_input(pb.EncodeRequest(text=message), 8)
    assert sequences == TextInput(("a", ("b", "")))
    assert count(sequences) == 2


def test_a_request_without_input_is_malformed() -> None:
    with pytest.raises(MalformedRequest, match="one of tokens and text must be set; received neither"):
        to_input(pb.EncodeRequest(), 8)


@pytest.mark.parametrize(
    "message",
    [
        pb.EncodeRequest(tokens=pb.TokenInput.FromString(UNKNOWN_FIELD)),
        pb.EncodeRequest(text=pb.TextInput.FromString(UNKNOWN_FIELD)),
        pb.EncodeRequest(text=pb.TextInput(texts=[pb.Text.FromString(UNKNOWN_FIELD)])),
        pb.EncodeRequest(tokens=pb.TokenInput(token_ids=[pb.Tensor.FromString(UNKNOWN_FIELD)])),
        pb.EncodeRequest(
            tokens=pb.TokenInput(token_ids=[tensor([1])], segment_ids=[pb.Tensor.FromString(UNKNOWN_FIELD)])
        ),
        pb.EncodeRequest(
            tokens=pb.TokenInput(token_ids=[tensor([1])], padding_mask=[pb.Tensor.FromString(UNKNOWN_FIELD)])
        ),
    ],
)
def test_an_unknown_field_is_refused_at_any_depth(message: pb.EncodeRequest) -> None:
    with pytest.raises(MalformedRequest, match="received number 31"):
        to_input(message, 8)


@pytest.mark.parametrize("field", ["token_ids", "segment_ids", "padding_mask"])
def test_too_many_rows_are_refused_in_every_field(field: str) -> None:
    rows = {"token_ids": [tensor([1])], field: [tensor([1])] * 9}
    with pytest.raises(PayloadTooLarge) as caught:
        to_input(pb.EncodeRequest(tokens=pb.TokenInput(**rows)), 8)
    assert caught.value.field == field


def test_texts_are_counted_from_both_sides_of_the_bound() -> None:
    message = pb.EncodeRequest(text=pb.TextInput(texts=[pb.Text(first="a")] * 8))
    assert count(to_input(message, 8)) == 8
    with pytest.raises(PayloadTooLarge):
        to_input(message, 7)


def test_every_output_has_a_value_and_no_value_means_the_default() -> None:
    assert set(OUTPUTS.values()) == set(Output)
    assert set(OUTPUTS) == set(pb.Output.values()) - {pb.OUTPUT_UNSPECIFIED}
    assert to_outputs([]) == DEFAULT_OUTPUTS
    assert to_outputs([pb.OUTPUT_MEAN, pb.OUTPUT_MEAN]) == {Output.MEAN}


@pytest.mark.parametrize("values", [[0], [99], [pb.OUTPUT_MEAN, -1], [pb.OUTPUT_MEAN] * 5])
def test_unknown_or_too_many_outputs_are_invalid(values: list[int]) -> None:
    with pytest.raises(InvalidInput) as caught:
        to_outputs(values)
    assert caught.value.field == "outputs"


ROWS = st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=4), min_size=1, max_size=4)


@given(ROWS)
def test_rows_survive_the_round_trip(rows: list[list[int]]) -> None:
    data = pb.EncodeRequest(tokens=tokens(*rows)).SerializeToString()
    sequences = to_input(parse(pb.EncodeRequest, data), 4)
    assert isinstance(sequences, TokenInput)
    assert [row.tolist() for row in sequences.token_ids] == rows


@given(ROWS, st.data())
def test_a_damaged_message_is_taken_or_refused(rows: list[list[int]], data: st.DataObject) -> None:
    sent = bytearray(request(*rows, outputs=[pb.OUTPUT_MEAN]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = parse(pb.EncodeRequest, bytes(sent))
        to_input(message, 4)
        to_outputs(message.outputs)
    except (MalformedRequest, InvalidInput, PayloadTooLarge):
        pass


def test_every_truncation_has_a_value() -> None:
    assert set(TRUNCATIONS.values()) == set(Truncation)
    assert set(TRUNCATIONS) == set(pb.Truncation.values()) - {pb.TRUNCATION_UNSPECIFIED}


@pytest.mark.parametrize(
    ("message", "truncation"),
    [
        (pb.EncodeRequest(), Truncation.NONE),
        (pb.EncodeRequest(truncate=True), Truncation.LONGEST_FIRST),
        (pb.EncodeRequest(truncation=pb.TRUNCATION_LEFT), Truncation.LEFT),
        (pb.EncodeRequest(truncate=True, truncation=pb.TRUNCATION_ONLY_SECOND), Truncation.ONLY_SECOND),
    ],
)
def test_truncation_and_truncate_are_one_rule(message: pb.EncodeRequest, truncation: Truncation) -> None:
    assert to_truncation(message) is truncation


def test_a_truncation_that_is_none_of_them_is_refused() -> None:
    with pytest.raises(InvalidInput, match="TRUNCATION_ONLY_SECOND; received 99") as caught:
        to_truncation(pb.EncodeRequest(truncation=99))  # type: ignore[arg-type]
    assert caught.value.field == "truncation"


def test_truncation_must_not_contradict_truncate() -> None:
    with pytest.raises(MalformedRequest) as caught:
        to_truncation(pb.EncodeRequest(truncate=True, truncation=pb.TRUNCATION_NONE))
    assert caught.value.field == "truncation"
