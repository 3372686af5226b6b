from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.rest.rows import STEP, id_rows, text_rows
from electra_serve.errors import InvalidInput, MalformedRequest
from tests.unit.api.rest.rejections import rejection
from tests.unit.api.rest.strategies import json_values

int64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.lists(int64)))
def test_ids_come_through_as_they_are(rows: list[list[int]]) -> None:
    converted = id_rows(rows, "token_ids")
    assert [row.tolist() for row in converted] == rows
    assert all(row.dtype == np.int64 for row in converted)


@given(json_values)
def test_any_json_is_ids_or_rejected_in_few_words(value: object) -> None:
    error = rejection(lambda: id_rows(value, "token_ids"))
    if error is not None:
        assert type(error) in {MalformedRequest, InvalidInput}
        assert (error.field or "").startswith("token_ids")
        assert len(error.message) < 160


@pytest.mark.parametrize(
    ("element", "name"),
    [
        ("1.5", "a number that is fractional or beyond 64 bits"),
        ("1.0", "a number that is fractional or beyond 64 bits"),
        ("1e2", "a number that is fractional or beyond 64 bits"),
        ("1180591620717411303424", "a number that is fractional or beyond 64 bits"),
        ('"7"', "a string"),
        ("true", "a boolean"),
        ("null", "null"),
        ("[1]", "a list"),
        ("{}", "an object"),
    ],
)
def test_an_element_that_is_no_integer_is_pointed_out(element: str, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        id_rows(orjson.loads(f"[[1,2],[],[3,{element},null]]"), "segment_ids")
    assert caught.value.field == "segment_ids[2]"
    assert caught.value.message == f"segment_ids must hold integers only; segment_ids[2][1] is {name}"


def test_many_ids_are_converted_in_steps_and_narrowed() -> None:
    ids = [*range(STEP), 2**31 - 1, -(2**31)]
    rows = id_rows([[], ids, [7]], "token_ids")
    assert [row.tolist() for row in rows] == [[], ids, [7]]
    assert rows[1].dtype == np.int32
    assert id_rows([[*ids, 2**31]], "token_ids")[0].dtype == np.int64


@pytest.mark.parametrize(("wrong", "said"), [(1.5, "is a number that is fractional"), (2**63, "has a larger one")])
def test_the_first_wrong_id_is_found_in_a_later_step(wrong: float, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        id_rows([[1] * STEP, [], [1, 2, wrong, wrong]], "token_ids")
    assert caught.value.field == "token_ids[2]"
    if isinstance(wrong, float):
        assert "token_ids[2][2]" in caught.value.message


def test_an_id_too_wide_before_one_that_is_none() -> None:
    with pytest.raises(InvalidInput, match="at most 64 bits"):
        id_rows([[2**63] + [1] * STEP + ["7"]], "token_ids")


def test_the_widest_integer_and_one_more() -> None:
    assert id_rows([[2**63 - 1]], "token_ids")[0].tolist() == [2**63 - 1]
    with pytest.raises(InvalidInput, match="at most 64 bits") as caught:
        id_rows([[2**63 - 1], [2**63]], "token_ids")
    assert caught.value.field == "token_ids[1]"


@pytest.mark.parametrize(("value", "name"), [(5, "an integer"), ("[[1]]", "a string"), ({}, "an object")])
def test_ids_must_be_a_list(value: object, name: str) -> None:
    with pytest.raises(MalformedRequest, match=f"received {name}$") as caught:
        id_rows(value, "token_ids")
    assert caught.value.field == "token_ids"


@pytest.mark.parametrize(("row", "name"), [(101, "an integer"), (None, "null"), ("1 2", "a string"), ({}, "an object")])
def test_each_row_must_be_a_list(row: object, name: str) -> None:
    with pytest.raises(MalformedRequest, match=rf"token_ids\[1\] is {name}$") as caught:
        id_rows([[1], row], "token_ids")
    assert caught.value.field == "token_ids[1]"


def test_texts_and_pairs() -> None:
    assert text_rows("one", "text") == ("one",)
    assert text_rows(["one", "two"], "text") == ("one", "two")
    assert text_rows(["one", ["a", "b"]], "text") == ("one", ("a", "b"))
    assert text_rows([], "text") == ()


@pytest.mark.parametrize("value", [5, True, {}, {"a": "b"}])
def test_text_must_be_a_string_or_a_list(value: object) -> None:
    with pytest.raises(MalformedRequest) as caught:
        text_rows(value, "text")
    assert caught.value.field == "text"


@pytest.mark.parametrize("entry", [1, None, {}, [], ["a"], ["a", 1], ["a", "b", "c"], [["a", "b"]]])
def test_each_text_must_be_a_string_or_a_pair(entry: object) -> None:
    with pytest.raises(MalformedRequest) as caught:
        text_rows(["fine", entry], "text")
    assert caught.value.field == "text[1]"


@given(json_values)
def test_any_json_is_texts_or_rejected_in_few_words(value: object) -> None:
    error = rejection(lambda: text_rows(value, "text"))
    assert error is None or (type(error) is MalformedRequest and len(error.message) < 160)
