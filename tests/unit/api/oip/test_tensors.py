"""Input tensors: each datatype, each shape, and bytes that disagree with them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.oip.tensors import (
    INPUTS,
    INTEGERS,
    TensorHeader,
    check_elements,
    from_bytes,
    header_of,
    to_text,
)
from electra_serve.errors import InvalidInput, PayloadTooLarge

IDS = [name for name in INPUTS if name != "text"]
OTHERS = ["FP16", "BF16", "FP32", "FP64", "BYTES", "int64", "TYPE_INT64", ""]


def header(name: str, datatype: str, *shape: int) -> TensorHeader:
    return header_of(name, datatype, shape, max_sequences=8)


def texts_as_bytes(texts: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def read(shape: Sequence[int], data: bytes) -> list[str]:
    tensor = from_bytes(header("text", "BYTES", *shape), memoryview(data))
    return [str(text) for text in tensor.data]


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("datatype", INTEGERS)
def test_an_integer_tensor_is_a_view_of_its_bytes(name: str, datatype: str) -> None:
    dtype = INTEGERS[datatype]
    data = np.array([0, 1, 1, 0, 1, 1], dtype).tobytes()
    tensor = from_bytes(header(name, datatype, 2, 3), memoryview(data))
    assert isinstance(tensor.data, np.ndarray)
    assert (tensor.data.dtype, tensor.data.tolist()) == (dtype, [0, 1, 1, 0, 1, 1])
    assert np.shares_memory(tensor.data, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("datatype", sorted(set(INTEGERS) - {"BOOL"}))
def test_the_least_and_the_largest_number_of_a_datatype_are_read(datatype: str) -> None:
    info = np.iinfo(INTEGERS[datatype])
    data = b"".join(number.to_bytes(info.bits // 8, "little", signed=info.min < 0) for number in (info.min, info.max))
    tensor = from_bytes(header("token_ids", datatype, 2), memoryview(data))
    assert [int(number) for number in tensor.data] == [info.min, info.max]


def test_bytes_at_an_odd_address_are_read() -> None:
    data = b"\0" + np.array([7, 8], "<i8").tobytes()
    tensor = from_bytes(header("token_ids", "INT64", 2), memoryview(data)[1:])
    assert [int(number) for number in tensor.data] == [7, 8]


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("datatype", OTHERS)
def test_other_datatypes_are_rejected_for_integers(name: str, datatype: str) -> None:
    with pytest.raises(InvalidInput, match=f"datatype of {name} must be one of BOOL") as caught:
        header(name, datatype, 1, 1)
    assert caught.value.field == name


@pytest.mark.parametrize("datatype", [*INTEGERS, *OTHERS])
def test_only_bytes_are_text(datatype: str) -> None:
    if datatype == "BYTES":
        assert header("text", datatype, 1).field == "text"
        return
    with pytest.raises(InvalidInput, match="datatype of text must be BYTES"):
        header("text", datatype, 1)


@pytest.mark.parametrize("name", ["", "ids", "TOKEN_IDS", "token_ids ", "text\0", "inputs"])
def test_unknown_names_are_not_repeated(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"inputs must be among token_ids, .*; got another$") as caught:
        header(name, "INT64", 1, 1)
    assert caught.value.field == "inputs"


@pytest.mark.parametrize("size", [-1, 1])
@pytest.mark.parametrize("datatype", INTEGERS)
def test_bytes_that_do_not_fit_the_shape_are_rejected(datatype: str, size: int) -> None:
    needed = 6 * INTEGERS[datatype].itemsize
    with pytest.raises(InvalidInput, match=rf"must have {needed} bytes for shape \[2, 3\] of {datatype}; got"):
        from_bytes(header("token_ids", datatype, 2, 3), memoryview(bytes(needed + size)))


@pytest.mark.parametrize("shape", [(-1,), (-1, 3), (2, -1), (2, -(2**63)), (-(2**63),)])
@pytest.mark.parametrize(("name", "datatype"), [("token_ids", "INT64"), ("text", "BYTES")])
def test_negative_dimensions_are_rejected(name: str, datatype: str, shape: Sequence[int]) -> None:
    with pytest.raises(InvalidInput, match="must not be negative"):
        header(name, datatype, *shape)


@pytest.mark.parametrize("shape", [(), (1, 1, 1), (1,) * 100])
@pytest.mark.parametrize(("name", "datatype"), [("padding_mask", "BOOL"), ("text", "BYTES")])
def test_a_tensor_has_one_or_two_dimensions(name: str, datatype: str, shape: Sequence[int]) -> None:
    with pytest.raises(InvalidInput, match="must have 1 or 2 dimensions; got"):
        header(name, datatype, *shape)


@pytest.mark.parametrize("columns", [0, 3, 2**62, 2**64])
def test_text_has_one_column_or_two(columns: int) -> None:
    with pytest.raises(InvalidInput, match=r"must be \[B\] or \[B, 1\], or \[B, 2\] for pairs"):
        header("text", "BYTES", 2, columns)


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "rows"),
    [
        ("token_ids", "INT64", (9, 1), 9),
        ("token_ids", "INT64", (2**63 - 1, 0), 2**63 - 1),
        ("attention_mask", "BOOL", (2**64, 2**64), 2**64),
        ("text", "BYTES", (9,), 9),
        ("text", "BYTES", (9, 1), 9),
        ("text", "BYTES", (2**62, 2), 2**62),
    ],
)
def test_rows_over_the_limit_are_too_large(name: str, datatype: str, shape: Sequence[int], rows: int) -> None:
    with pytest.raises(PayloadTooLarge, match=f"at most 8 sequences; got {rows}") as caught:
        header(name, datatype, *shape)
    assert caught.value.field == name


def test_one_dimension_is_one_row_of_ids_however_long() -> None:
    assert header("token_ids", "INT64", 1000).elements == 1000
    assert header("token_ids", "INT64", 8, 1000).elements == 8000


@pytest.mark.parametrize("shape", [(2**63 - 1,), (8, 2**63 - 1), (1, 2**64), (8, 2**64)])
def test_huge_shapes_cost_no_memory(shape: Sequence[int]) -> None:
    with pytest.raises(InvalidInput, match="must have"):
        from_bytes(header("token_ids", "INT64", *shape), memoryview(bytes(8)))


@pytest.mark.parametrize(
    "texts", [["a"], [""], ["", ""], ["héllo", "b"], ["\0", "😀"], ["x" * 300, "", "y"]], ids=ascii
)
def test_texts_are_read(texts: list[str]) -> None:
    data = texts_as_bytes([text.encode() for text in texts])
    assert read([len(texts)], data) == texts
    assert read([len(texts), 1], data) == texts


def test_pairs_are_read_row_by_row() -> None:
    assert read([2, 2], texts_as_bytes([b"a", b"b", b"", b"d"])) == ["a", "b", "", "d"]


def test_no_texts_are_no_bytes() -> None:
    assert read([0], b"") == []
    assert read([0, 2], b"") == []


@pytest.mark.parametrize(
    "data",
    [
        b"\0",  # a part of a length
        b"\0\0\0",
        b"\1\0\0\0",  # no byte of the text
        b"\3\0\0\0ab",
        b"\xff\xff\xff\xffab",
        texts_as_bytes([b"a"]) + b"\2\0",
        texts_as_bytes([b"a"]) + b"\2\0\0\0b",
    ],
)
def test_an_element_must_end_in_the_tensor(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="ends after the tensor") as caught:
        read([2], data)
    assert caught.value.field == "text"


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], "0"),
        ([b"a"], "1"),
        ([b"a", b"b", b"c"], "more"),  # ends exactly after one element too many
        ([b"a", b"b", b""], "more"),
        ([b"a", b"b", b"c", b"d"], "more"),
    ],
)
def test_as_many_texts_as_the_shape_says(texts: Sequence[bytes], found: str) -> None:
    with pytest.raises(InvalidInput, match=rf"must have 2 elements for shape \[2\]; got {found}"):
        read([2], texts_as_bytes(texts))


def test_bytes_after_the_last_text_are_rejected() -> None:
    for rest in (b"\0", b"\0\0\0\0", b"\xff" * 5):
        with pytest.raises(InvalidInput, match="got more"):
            read([1], texts_as_bytes([b"a"]) + rest)
        with pytest.raises(InvalidInput, match="got more"):
            read([0], rest)


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_text_is_utf_8(text: bytes) -> None:
    with pytest.raises(InvalidInput, match="text must be UTF-8; element 1 is not") as caught:
        read([2], texts_as_bytes([b"ok", text]))
    assert caught.value.field == "text"
    with pytest.raises(InvalidInput, match="element 7 is not"):
        to_text(header("text", "BYTES", 8), 7, text)


@given(st.lists(st.text(), max_size=8))
def test_any_texts_are_read(texts: list[str]) -> None:
    encoded = [text.encode("utf-8", "replace") for text in texts]
    assert read([len(texts)], texts_as_bytes(encoded)) == [text.decode() for text in encoded]


@given(st.integers(0, 9), st.binary(max_size=60))
def test_any_bytes_are_texts_or_invalid(rows: int, data: bytes) -> None:
    try:
        texts = read([rows], data)
    except (InvalidInput, PayloadTooLarge):
        return
    assert texts_as_bytes([text.encode() for text in texts]) == data


@given(
    st.sampled_from([*INPUTS, "x"]),
    st.sampled_from([*INTEGERS, *OTHERS]),
    st.lists(st.integers(-(2**65), 2**65) | st.integers(-1, 9), max_size=4),
    st.binary(max_size=80),
)
def test_any_description_is_valid_or_an_error_of_the_client(
    name: str, datatype: str, shape: list[int], data: bytes
) -> None:
    try:
        tensor = from_bytes(header(name, datatype, *shape), memoryview(data))
    except (InvalidInput, PayloadTooLarge):
        return
    assert len(tensor.data) == tensor.header.elements


def test_elements_are_counted() -> None:
    described = header("input_ids", "INT32", 2, 3)
    check_elements(described, 6)
    for count in (0, 5, 7):
        with pytest.raises(InvalidInput, match=rf"input_ids must have 6 elements for shape \[2, 3\]; got {count}"):
            check_elements(described, count)
