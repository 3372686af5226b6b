"""Inference requests to the service's: inputs by either name, parameters, versions and outputs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.oip.decode import (
    MAX_WHOLE,
    UNSUPPORTED_PARAMETERS,
    Decoded,
    InferRequest,
    check_tensor_parameters,
    check_version,
    decode,
    with_parameters,
)
from electra_serve.api.oip.tensors import INTEGERS, Tensor, header_of
from electra_serve.errors import InvalidInput, MalformedRequest, ModelNotFound
from electra_serve.serving.request_context import NO_CONTEXT, Deadline, Priority
from electra_serve.serving.transit_budget import Transit
from electra_serve.tensors import IntArray, Output, TextInput, TokenInput, Truncation
from tests.fake_service import READY
from tests.fakes import transit_budget

INT64 = np.dtype("<i8")


def ids(name: str, values: object, dtype: np.dtype[np.int64] = INT64) -> Tensor:
    array = np.asarray(values, dtype)
    return Tensor(header_of(name, "INT64", array.shape, max_sequences=8), array.reshape(-1))


def texts(shape: Sequence[int], *values: str) -> Tensor:
    return Tensor(header_of("text", "BYTES", shape, max_sequences=8), values)


def decoded(
    *inputs: Tensor,
    outputs: Sequence[str] | None = None,
    parameters: Mapping[str, object] | None = None,
    version: str = "",
) -> Decoded:
    infer = InferRequest("tiny", version, inputs, outputs, parameters or {})
    return decode(infer, READY, NO_CONTEXT)


def tokens_of(found: Decoded) -> TokenInput:
    assert isinstance(found.request.input, TokenInput)
    return found.request.input


def listed(rows: Sequence[IntArray] | None) -> list[list[int]]:
    assert rows is not None
    return [row.tolist() for row in rows]


@pytest.mark.parametrize("token_ids", ["token_ids", "input_ids"])
@pytest.mark.parametrize("segment_ids", ["segment_ids", "token_type_ids"])
@pytest.mark.parametrize("padding_mask", ["padding_mask", "attention_mask"])
def test_names_of_either_kind_are_one_field(token_ids: str, segment_ids: str, padding_mask: str) -> None:
    rows = ([[1, 2], [3, 4]], [[0, 1], [0, 0]], [[1, 1], [1, 0]])
    inputs = [ids(name, values) for name, values in zip((token_ids, segment_ids, padding_mask), rows, strict=True)]
    found = decoded(*reversed(inputs))  # in any order
    tokens = tokens_of(found)
    assert (listed(tokens.token_ids), listed(tokens.segment_ids), listed(tokens.padding_mask)) == rows
    spelled = [found.renamed(field) for field in ("token_ids[1][0]", "segment_ids", "padding_mask[0]")]
    assert spelled == [f"{token_ids}[1][0]", segment_ids, f"{padding_mask}[0]"]


def test_other_fields_keep_their_names() -> None:
    found = decoded(ids("input_ids", [[1]]))
    assert [found.renamed(field) for field in (None, "outputs", "text[0]", "token_ids_x", "")] == [
        None,
        "outputs",
        "text[0]",
        "token_ids_x",
        "",
    ]


def test_segments_and_mask_are_optional() -> None:
    tokens = tokens_of(decoded(ids("token_ids", [[1, 0]])))
    assert (tokens.segment_ids, tokens.padding_mask) == (None, None)


def test_one_dimension_is_one_row() -> None:
    tokens = tokens_of(decoded(ids("token_ids", [5, 6, 7]), ids("padding_mask", [1, 1, 0])))
    assert (listed(tokens.token_ids), listed(tokens.padding_mask)) == ([[5, 6, 7]], [[1, 1, 0]])


@pytest.mark.parametrize("shape", [(1, 6), (6,), (3, 2)])
def test_rows_are_views(shape: tuple[int, ...]) -> None:
    tensor = ids("token_ids", np.arange(6).reshape(shape))
    assert isinstance(tensor.data, np.ndarray)
    assert all(np.shares_memory(row, tensor.data) for row in tokens_of(decoded(tensor)).token_ids)


@pytest.mark.parametrize("columns", [0, 5, 2**62, 2**63, 2**64])
def test_no_rows_are_no_rows_however_long(columns: int) -> None:
    header = header_of("token_ids", "INT64", (0, columns), max_sequences=8)
    assert listed(tokens_of(decoded(Tensor(header, np.zeros(0, INT64)))).token_ids) == []


def test_rows_without_ids_stay_empty() -> None:
    assert listed(tokens_of(decoded(ids("token_ids", np.zeros((3, 0))))).token_ids) == [[], [], []]


@given(st.sampled_from(sorted(INTEGERS)), st.integers(0, 8), st.integers(0, 5))
def test_any_rectangle_has_its_rows(datatype: str, rows: int, columns: int) -> None:
    values = np.arange(rows * columns, dtype=INTEGERS[datatype])
    header = header_of("input_ids", datatype, (rows, columns), max_sequences=8)
    assert listed(tokens_of(decoded(Tensor(header, values))).token_ids) == values.reshape(rows, columns).tolist()


@pytest.mark.parametrize(
    ("first", "second"),
    [("token_ids", "token_ids"), ("token_ids", "input_ids"), ("input_ids", "token_ids"), ("input_ids", "input_ids")],
)
def test_an_input_comes_once_by_any_name(first: str, second: str) -> None:
    with pytest.raises(InvalidInput, match=f"given once; got {first} and {second}") as caught:
        decoded(ids(first, [[1]]), ids(second, [[1]]))
    assert caught.value.field == second


@pytest.mark.parametrize(("first", "second"), [("padding_mask", "attention_mask"), ("token_type_ids", "segment_ids")])
def test_segments_and_mask_come_once_too(first: str, second: str) -> None:
    with pytest.raises(InvalidInput, match=f"got {first} and {second}"):
        decoded(ids("token_ids", [[1]]), ids(first, [[1]]), ids(second, [[1]]))


def test_text_comes_once() -> None:
    with pytest.raises(InvalidInput, match="got text and text"):
        decoded(texts([1], "a"), texts([1], "a"))


def test_ids_or_text_but_not_both() -> None:
    with pytest.raises(InvalidInput, match="exactly one of token_ids and text; got both"):
        decoded(texts([1], "a"), ids("input_ids", [[1]]))
    for nothing in ((), (ids("padding_mask", [[1]]),), (ids("token_type_ids", [[1]]), ids("attention_mask", [[1]]))):
        with pytest.raises(InvalidInput, match="exactly one of token_ids and text; got neither"):
            decoded(*nothing)
    for name in ("segment_ids", "attention_mask"):
        with pytest.raises(InvalidInput, match="go with token_ids; got text"):
            decoded(texts([1], "a"), ids(name, [[1]]))


@pytest.mark.parametrize("values", [[[1, 1, 1]], [[1], [1]], [1, 1], [[1, 1], [1, 1]], np.zeros((0, 2)), [[]]])
@pytest.mark.parametrize("name", ["segment_ids", "attention_mask"])
def test_all_inputs_have_one_shape(name: str, values: object) -> None:
    with pytest.raises(InvalidInput, match=rf"shape of {name} must be that of input_ids, \[1, 2\]") as caught:
        decoded(ids(name, values), ids("input_ids", [[1, 2]]))
    assert caught.value.field == name


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_texts_are_sequences(shape: Sequence[int]) -> None:
    assert decoded(texts(shape, "a", "")).request.input == TextInput(("a", ""))


def test_two_columns_are_pairs() -> None:
    assert decoded(texts([2, 2], "a", "b", "", "d")).request.input == TextInput((("a", "b"), ("", "d")))
    assert decoded(texts([1, 2], "a", "b")).request.input == TextInput((("a", "b"),))
    for shape in ([0], [0, 1], [0, 2]):
        assert decoded(texts(shape)).request.input == TextInput(())


@pytest.mark.parametrize("outputs", [None, []])
def test_all_outputs_of_the_model_by_default(outputs: Sequence[str] | None) -> None:
    found = decoded(ids("token_ids", [[1]]), outputs=outputs)
    assert found.outputs == (
        *("sequence_output", "pooled_output", "cls_output", "mean_output", "embedding", "logits"),
        "token_counts",
    )
    assert found.request.outputs == frozenset(Output) - {Output.TOKEN_LOGITS}


def test_outputs_in_the_order_of_the_request() -> None:
    names = ["token_counts", "mean_output", "last_hidden_state", "mean_output", "pooler_output"]
    found = decoded(ids("token_ids", [[1]]), outputs=names)
    assert found.outputs == ("token_counts", "mean_output", "last_hidden_state", "pooler_output")
    assert found.request.outputs == {Output.MEAN, Output.SEQUENCE, Output.POOLED}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sequence_output", "last_hidden_state"),
        ("last_hidden_state", "sequence_output"),
        ("pooler_output", "pooled_output"),
    ],
)
def test_an_output_has_one_name(first: str, second: str) -> None:
    with pytest.raises(InvalidInput, match="under one name; got two") as caught:
        decoded(ids("token_ids", [[1]]), outputs=[first, "mean_output", second])
    assert caught.value.field == "outputs"


@pytest.mark.parametrize("name", ["", "hidden", "MEAN_OUTPUT", "text", "mean_output "])
def test_unknown_outputs_are_rejected(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"outputs must be among sequence_output, .*got an unknown one$") as caught:
        decoded(ids("token_ids", [[1]]), outputs=["mean_output", name])
    assert caught.value.field == "outputs"


def test_the_only_version_is_1() -> None:
    for version in ("", "1"):
        check_version(version)
        assert decoded(ids("token_ids", [[1]]), version=version).request.model == "tiny"
    for version in ("0", "2", "01", "1.0", "latest", " 1", "-1", "१"):
        with pytest.raises(ModelNotFound, match="has the version 1 only; got another") as caught:
            decoded(ids("token_ids", [[1]]), version=version)
        assert caught.value.field == "model_version"


def test_a_wrong_version_is_reported_before_wrong_inputs() -> None:
    with pytest.raises(ModelNotFound):
        decoded(version="2")


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        (0, Priority.LOW),  # that of the context
        (1, Priority.HIGH),
        (2, Priority.NORMAL),
        (3, Priority.LOW),
        (1.0, Priority.HIGH),  # JSON has one type for all numbers
        (7, Priority.LOW),
        (2**64 - 1, Priority.LOW),
    ],
)
def test_the_priority_of_a_request(value: float, priority: Priority) -> None:
    context = replace(NO_CONTEXT, priority=Priority.LOW)
    assert with_parameters(context, {"priority": value}).priority is priority


@pytest.mark.parametrize("name", ["priority", "timeout"])
@pytest.mark.parametrize(
    "value", [True, False, -1, -(2**63), MAX_WHOLE + 1, 1.5, -1.0, 1e300, float("inf"), float("nan"), "1", "high", ""]
)
def test_priority_and_timeout_are_whole_numbers(name: str, value: object) -> None:
    with pytest.raises(MalformedRequest, match=f"parameter {name} must be a whole number of 0 or more") as caught:
        decoded(ids("token_ids", [[1]]), parameters={name: value})
    assert caught.value.field == name


def test_a_timeout_counts_microseconds() -> None:
    before = time.monotonic()
    deadline = with_parameters(NO_CONTEXT, {"timeout": 5_000_000}).deadline
    assert deadline is not None
    assert before + 5 <= deadline.at_s <= time.monotonic() + 5


def test_no_timeout_leaves_the_deadline() -> None:
    deadline = Deadline(7.0)
    for parameters in ({}, {"timeout": 0}):
        assert with_parameters(NO_CONTEXT, parameters).deadline is None
        assert with_parameters(replace(NO_CONTEXT, deadline=deadline), parameters).deadline is deadline


def test_the_earlier_deadline_applies() -> None:
    soon, late = Deadline.after(1.0), Deadline.after(1e9)
    ten_seconds = {"timeout": 10_000_000}
    assert with_parameters(replace(NO_CONTEXT, deadline=soon), ten_seconds).deadline is soon
    limited = with_parameters(replace(NO_CONTEXT, deadline=late), ten_seconds).deadline
    assert limited is not None
    assert limited.remaining_s() <= 10
    assert with_parameters(replace(NO_CONTEXT, deadline=late), {"timeout": MAX_WHOLE}).deadline is late


def test_the_rest_of_the_context_stays() -> None:
    context = replace(NO_CONTEXT, request_id="r", client="c", admitted=True)
    changed = with_parameters(context, {"priority": 1, "timeout": 10})
    assert replace(changed, priority=context.priority, deadline=None) == context


def test_truncation_is_a_choice() -> None:
    for parameters, truncation in (
        ({}, Truncation.NONE),
        ({"truncate": False}, Truncation.NONE),
        ({"truncate": True}, Truncation.LONGEST_FIRST),
    ):
        assert decoded(ids("token_ids", [[1]]), parameters=parameters).request.truncation is truncation


@pytest.mark.parametrize("value", [0, 1, 1.0, "true", ""])
def test_truncate_is_a_boolean(value: object) -> None:
    with pytest.raises(MalformedRequest, match="parameter truncate must be true or false") as caught:
        decoded(ids("token_ids", [[1]]), parameters={"truncate": value})
    assert caught.value.field == "truncate"


def test_unknown_parameters_are_ignored() -> None:
    parameters: Mapping[str, object] = {
        "content_type": "np",
        "sequence_id": 3,
        "binary_data_output": True,
        "headers": "x",
        "Priority": "x",
    }
    assert decoded(ids("token_ids", [[1]]), parameters=parameters).request.context == NO_CONTEXT


@pytest.mark.parametrize("name", sorted(UNSUPPORTED_PARAMETERS))
def test_parameters_of_other_extensions_are_rejected(name: str) -> None:
    with pytest.raises(InvalidInput, match="which are not supported") as caught:
        check_tensor_parameters("input_ids", {"binary_data_size": 8, name: 1})
    assert caught.value.field == "input_ids"
    check_tensor_parameters("input_ids", {"binary_data_size": 8, "content_type": "np"})


def test_limits_of_the_response_reach_the_service() -> None:
    transit = Transit(transit_budget().reserve("c", 8), 4)
    infer = InferRequest("tiny", "", [ids("token_ids", [[1]])], ["cls_output"], {})
    request = decode(infer, READY, NO_CONTEXT, max_values=9, transit=transit).request
    assert (request.max_values, request.transit, request.rectangular) == (9, transit, True)
