"""Tensors of responses: names, shapes, zeros after a sequence's end, and no avoidable copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.oip.outputs import (
    OUTPUTS,
    TOKEN_COUNTS,
    check_outputs,
    computed_outputs,
    head_output,
    outputs_of,
    to_tensors,
)
from electra_serve.errors import InvalidInput
from electra_serve.serving.encode import EncodeResult
from electra_serve.tensors import POSITION_OUTPUTS, Float32Array, Output, Outputs, RowOutput
from tests.fake_service import READY, row_output

ENCODER = ("sequence_output", "pooled_output", "cls_output", "mean_output", "embedding")
EVERY: Outputs = frozenset(Output)


def result(*rows: RowOutput, tokens: Sequence[int] | None = None, outputs: Outputs = EVERY) -> EncodeResult:
    counts = tuple(tokens) if tokens is not None else (1,) * len(rows)
    return EncodeResult("tiny", outputs, rows, counts, (False,) * len(rows))


def of_ids(*rows: list[int]) -> EncodeResult:
    return result(*(row_output(row, EVERY) for row in rows), tokens=[len(row) for row in rows])


def only(found: EncodeResult, name: str) -> Float32Array:
    (tensor,) = to_tensors(found, [name])
    assert (tensor.name, tensor.datatype) == (name, "FP32")
    assert tensor.array.flags.c_contiguous
    assert tensor.array.dtype == np.float32
    return np.asarray(tensor.array, np.float32)


@pytest.mark.parametrize(
    ("head", "labels", "output"),
    [
        ("sequence_classification", ("bad", "good"), "logits"),
        ("token_classification", ("O", "PER", "LOC"), "token_logits"),
        ("question_answering", ("start", "end"), "token_logits"),
        ("replaced_token_detection", ("replaced",), "token_logits"),
        ("none", (), None),
        ("token_classification (left out)", (), None),
    ],
)
def test_a_model_has_the_output_of_its_head(head: str, labels: tuple[str, ...], output: str | None) -> None:
    info = replace(READY, head=head, labels=labels)
    assert head_output(info) == output
    assert outputs_of(info) == (*ENCODER, *([output] if output else []), TOKEN_COUNTS)


def test_every_listed_output_can_be_requested() -> None:
    for labels in ((), ("a",)):
        for head in ("sequence_classification", "token_classification"):
            names = outputs_of(replace(READY, head=head, labels=labels))
            assert check_outputs(names) == names


def test_names_of_transformers_are_accepted() -> None:
    assert OUTPUTS["last_hidden_state"] is Output.SEQUENCE
    assert OUTPUTS["pooler_output"] is Output.POOLED
    with pytest.raises(InvalidInput, match="last_hidden_state, pooler_output, token_counts; got an unknown one"):
        check_outputs(["hidden_states"])


def test_counts_alone_need_a_cheap_output() -> None:
    assert computed_outputs([TOKEN_COUNTS]) == {Output.CLS}
    assert computed_outputs([TOKEN_COUNTS, "mean_output"]) == {Output.MEAN}


@pytest.mark.parametrize("name", OUTPUTS)
def test_rows_of_one_length_are_a_rectangle(name: str) -> None:
    array = only(of_ids([1, 2, 3], [4, 5, 6]), name)
    width = 2 if "logits" in name else 4
    positions = OUTPUTS[name] in POSITION_OUTPUTS
    assert array.shape == ((2, 3, width) if positions else (2, width))
    first = array[:, :, 0].tolist() if positions else array[:, 0].tolist()
    expected = {"mean_output": [2, 5], "embedding": [2, 5]}.get(name, [1, 4])
    assert first == ([[1, 2, 3], [4, 5, 6]] if positions else expected)


@pytest.mark.parametrize("name", ["sequence_output", "last_hidden_state", "token_logits"])
def test_shorter_rows_end_in_zeros(name: str) -> None:
    array = only(of_ids([1], [4, 5, 6], [7, 8]), name)
    assert array[:, :, 0].tolist() == [[1, 0, 0], [4, 5, 6], [7, 8, 0]]


@pytest.mark.parametrize("rows", [1, 3])
def test_masked_ends_are_zeros_up_to_the_length_of_the_request(rows: int) -> None:
    computed = np.full((2, 4), 7, np.float32)
    array = only(result(*(RowOutput(sequence_output=computed, length=5) for _ in range(rows))), "sequence_output")
    assert array.shape == (rows, 5, 4)
    assert array[:, :2].min() == 7
    assert not array[:, 2:].any()


@pytest.mark.parametrize("name", OUTPUTS)
def test_one_whole_row_is_not_copied(name: str) -> None:
    array = np.ones((3, 4) if OUTPUTS[name] in POSITION_OUTPUTS else 4, np.float32)
    row = replace(RowOutput(), **{OUTPUTS[name].value: array})  # type: ignore[arg-type]  # any field of an array
    assert np.shares_memory(only(result(row), name), array)


def test_a_strided_row_becomes_contiguous() -> None:
    batch = np.arange(24, dtype=np.float32).reshape(4, 6)
    row = RowOutput(sequence_output=batch[:, :3], cls_output=batch[:, 0])
    assert only(result(row), "sequence_output").tolist() == [batch[:, :3].tolist()]
    assert only(result(row), "cls_output").tolist() == [[0, 6, 12, 18]]


def test_counts_are_those_of_unmasked_positions() -> None:
    found = result(*(row_output([1, 2, 3], EVERY) for _ in range(3)), tokens=[3, 1, 2])
    (tensor,) = to_tensors(found, [TOKEN_COUNTS])
    assert (tensor.datatype, str(tensor.array.dtype), tensor.array.tolist()) == ("INT32", "int32", [3, 1, 2])


def test_tensors_come_in_the_order_of_the_names() -> None:
    names = ["token_counts", "pooler_output", "sequence_output", "cls_output"]
    assert [tensor.name for tensor in to_tensors(of_ids([1]), names)] == names
    assert to_tensors(of_ids([1]), []) == []


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 4)), min_size=1, max_size=5))
def test_any_rows_fill_their_places(sizes: list[tuple[int, int]]) -> None:
    rows = [
        RowOutput(sequence_output=np.full((computed, 4), 1 + at, np.float32), length=computed + masked)
        for at, (computed, masked) in enumerate(sizes)
    ]
    array = only(result(*rows), "sequence_output")
    assert array.shape == (len(rows), max(sum(size) for size in sizes), 4)
    for at, (computed, _) in enumerate(sizes):
        assert (array[at, :computed] == 1 + at).all()
        assert not array[at, computed:].any()
