"""Request messages to the service's types: every way in which fields, bytes and shapes can disagree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from electra_serve.api.grpc.decode import OUTPUTS, TRUNCATIONS, count, to_input, to_outputs, to_rows, to_truncation
from electra_serve.api.grpc.parsing import parse
from electra_serve.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers
from electra_serve.tensors import DEFAULT_OUTPUTS, Output, TextInput, TokenInput, Truncation
from tests.unit.api.grpc.messages import UNKNOWN_FIELD, request, tensor, tokens

INT32, INT64, FLOAT32 = pb.DATA_TYPE_INT32, pb.DATA_TYPE_INT64, pb.DATA_TYPE_FLOAT32
SIDE = st.integers(1, 5)


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
def test_an_unknown_field_is_rejected_at_any_depth(message: pb.EncodeRequest) -> None:
    with pytest.raises(MalformedRequest, match="received number 31"):
        to_input(message, 8)


@pytest.mark.parametrize("field", ["token_ids", "segment_ids", "padding_mask"])
def test_too_many_rows_are_rejected_in_every_field(field: str) -> None:
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


@pytest.mark.parametrize("values", [[0], [99], [pb.OUTPUT_MEAN, -1], [pb.OUTPUT_MEAN] * (len(OUTPUTS) + 1)])
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
def test_a_damaged_message_is_taken_or_rejected(rows: list[list[int]], data: st.DataObject) -> None:
    sent = bytearray(request(*rows, outputs=[pb.OUTPUT_MEAN]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = parse(pb.EncodeRequest, bytes(sent))
        to_input(message, 4)
        to_outputs(message.outputs)
    except (MalformedRequest, InvalidInput, PayloadTooLarge):
        pass


@given(hnp.arrays(st.sampled_from([np.int32, np.int64]), st.one_of(st.tuples(SIDE), st.tuples(SIDE, SIDE))))
def test_integers_survive_the_round_trip(array: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> None:
    rows = to_rows([from_integers(array)], "token_ids", max_rows=5)
    expected = array.reshape(-1, array.shape[-1])
    assert [row.dtype for row in rows] == [array.dtype] * len(expected)
    np.testing.assert_array_equal(rows, expected)


def test_rows_of_a_transposed_array_keep_their_order() -> None:
    transposed = np.array([[1, 2], [3, 4]], np.int32).T
    assert [row.tolist() for row in to_rows([from_integers(transposed)], "token_ids", 2)] == [[1, 3], [2, 4]]


def test_ranks_mix_and_rows_keep_their_order() -> None:
    rows = to_rows([tensor([1, 2, 3]), tensor([[4, 5], [6, 7]]), tensor([8])], "token_ids", max_rows=4)
    assert [row.tolist() for row in rows] == [[1, 2, 3], [4, 5], [6, 7], [8]]


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (pb.Tensor(shape=[1], data=b"1234"), "received DATA_TYPE_UNSPECIFIED"),
        (pb.Tensor(dtype=FLOAT32, shape=[1], data=b"1234"), "received DATA_TYPE_FLOAT32"),
        (pb.Tensor(dtype=99, shape=[1], data=b"1234"), "received 99"),  # type: ignore[arg-type]
        (pb.Tensor(dtype=INT32, data=b"1234"), "1 or 2 dimensions; received 0"),
        (pb.Tensor(dtype=INT32, shape=[1, 1, 1], data=b"1234"), "1 or 2 dimensions; received 3"),
        (pb.Tensor(dtype=INT32, shape=[2**62, 0]), "at least 1; received shape [4611686018427387904, 0]"),
        (pb.Tensor(dtype=INT32, shape=[-1], data=b"1234"), "at least 1; received shape [-1]"),
        (pb.Tensor(dtype=INT32, shape=[-1, -1], data=b"1234"), "at least 1; received shape [-1, -1]"),
        (pb.Tensor(dtype=INT32, shape=[2], data=b"1234"), "8 bytes for shape [2] of DATA_TYPE_INT32; received 4"),
        (pb.Tensor(dtype=INT64, shape=[1], data=b"1234"), "8 bytes for shape [1] of DATA_TYPE_INT64; received 4"),
        (pb.Tensor(dtype=INT32, shape=[1], data=b"12345"), "4 bytes for shape [1] of DATA_TYPE_INT32; received 5"),
        (pb.Tensor(dtype=INT32, shape=[2**62, 2**62], data=b"1234"), "received 4"),
        (pb.Tensor(dtype=INT32, shape=[2**62, 4]), "received 0"),
    ],
)
def test_a_broken_tensor_is_rejected_and_named(broken: pb.Tensor, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        to_rows([tensor([1]), broken], "segment_ids", max_rows=8)
    assert text in caught.value.message
    assert caught.value.field == "segment_ids[1]"


def test_an_unknown_field_inside_a_tensor_is_rejected_and_named() -> None:
    with pytest.raises(MalformedRequest) as caught:
        to_rows([pb.Tensor.FromString(tensor([1]).SerializeToString() + UNKNOWN_FIELD)], "token_ids", 8)
    assert caught.value.field == "token_ids[0]"


@pytest.mark.parametrize("tensors", [[tensor([1])] * 3, [tensor([[1], [2], [3]])], [tensor([[1], [2]]), tensor([3])]])
def test_rows_are_counted_from_both_sides_of_the_bound(tensors: list[pb.Tensor]) -> None:
    assert len(to_rows(tensors, "token_ids", max_rows=3)) == 3
    with pytest.raises(PayloadTooLarge):
        to_rows(tensors, "token_ids", max_rows=2)


@given(st.integers(0, 4), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3), st.binary(max_size=64))
def test_any_tensor_is_rows_or_rejected(dtype: int, shape: list[int], data: bytes) -> None:
    message = pb.Tensor(dtype=dtype, shape=shape, data=data)  # type: ignore[arg-type]
    try:
        rows = to_rows([message], "token_ids", max_rows=4)
    except (InvalidInput, PayloadTooLarge):
        return
    assert sum(row.nbytes for row in rows) == len(data)


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


def test_an_unknown_truncation_is_rejected() -> None:
    with pytest.raises(InvalidInput, match="TRUNCATION_ONLY_SECOND; received 99") as caught:
        to_truncation(pb.EncodeRequest(truncation=99))  # type: ignore[arg-type]
    assert caught.value.field == "truncation"


def test_truncation_must_not_contradict_truncate() -> None:
    with pytest.raises(MalformedRequest) as caught:
        to_truncation(pb.EncodeRequest(truncate=True, truncation=pb.TRUNCATION_NONE))
    assert caught.value.field == "truncation"
