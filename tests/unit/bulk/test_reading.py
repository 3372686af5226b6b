"""Input files: every format and compression gives the same rows, from any row on; one bad row spoils no other."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from electra_serve.bulk import tables
from electra_serve.bulk.inputs import InputFile, file_format, find_inputs
from electra_serve.bulk.lines import MAX_LINE_BYTES
from electra_serve.bulk.options import Columns
from electra_serve.bulk.reading import Position, Reader
from electra_serve.bulk.values import NOT_UTF8, NULL, Problem, TokenRow, plain_id
from electra_serve.errors import BulkConflict, BulkError
from tests.unit.bulk.support import read, read_ids, texts, write_bytes, write_table

NAMES = [
    *("rows.parquet", "rows.arrow", "rows.arrows", "rows.csv", "rows.tsv", "rows.jsonl", "rows.txt"),
    *("rows.csv.gz", "rows.jsonl.gz", "rows.jsonl.zst", "rows.txt.zst", "rows.arrows.gz", "rows.arrow.zst"),
]
ROWS = texts(2500)


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    if name == "rows.arrow.zst":  # compressed, it must be a stream
        stream = write_table(tmp_path / "rows.arrows", {"text": ROWS}).read_bytes()
        path = write_bytes(tmp_path / name, stream)
    else:
        path = write_table(tmp_path / name, {"text": ROWS})
    assert read(path) == ROWS


@pytest.mark.parametrize("row", [0, 1, 999, 1000, 1001, 1024, 2047, 2048, 2499, 2500])
@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.arrows", "rows.csv", "rows.jsonl.gz", "rows.txt"])
def test_reading_continues_at_any_row(name: str, row: int, tmp_path: Path) -> None:
    path = write_table(tmp_path / name, {"text": ROWS})
    reader = Reader(find_inputs(str(path)), Columns())
    found = list(reader.read(Position(0, row)))
    assert [value for _, chunk in found for value in chunk.values] == ROWS[row:]
    assert not found or found[0][0] == Position(0, row)


def test_a_pattern_names_files_in_order_and_reading_continues_in_any(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write_table(tmp_path / f"{number}.jsonl", {"text": [f"{number}-{row}" for row in range(3)]})
    pattern = str(tmp_path / "*.jsonl")
    assert read(pattern) == [f"{number}-{row}" for number in range(3) for row in range(3)]
    assert read(pattern, start=Position(1, 2)) == ["1-2", "2-0", "2-1", "2-2"]


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.csv", "pairs.jsonl"])
def test_two_columns_are_pairs(name: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / name, {"a": ["x", "y"], "b": ["1", "2"]})
    assert read(path, Columns(text="a", text_pair="b")) == [("x", "1"), ("y", "2")]


@pytest.mark.parametrize("name", ["ids.parquet", "ids.arrow", "ids.jsonl"])
def test_columns_of_token_ids(name: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / name, {"t": [[1, 2], None, [3]], "s": [[0, 1], [0], [1]], "m": [[1, 1], [1], [1]]})
    first, second, third = read(path, Columns(token_ids="t", segment_ids="s", padding_mask="m"))
    assert second == NULL
    assert isinstance(first, TokenRow)
    assert isinstance(third, TokenRow)
    arrays = [first.token_ids, first.segment_ids, first.padding_mask, third.token_ids]
    assert [np.asarray(array).tolist() for array in arrays] == [[1, 2], [0, 1], [1, 1], [3]]


@pytest.mark.parametrize("kind", [pa.list_(pa.int16()), pa.large_list(pa.uint64()), pa.list_(pa.int32(), 2)])
def test_token_ids_of_any_integer_type(kind: pa.DataType, tmp_path: Path) -> None:
    array = pa.array([[1, 2], [3, None], [5, 6]], kind)
    one, hole, other = read(write_table(tmp_path / "a.arrow", {"t": array.slice(0)}), Columns(token_ids="t"))
    assert hole == NULL
    assert isinstance(one, TokenRow)
    assert isinstance(other, TokenRow)
    assert (one.token_ids.tolist(), other.token_ids.tolist()) == ([1, 2], [5, 6])


TEXTS = pa.array(["a", None, "ü"], pa.string())


@pytest.mark.parametrize(
    "column",
    [
        *(TEXTS.cast(kind) for kind in (pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view())),
        TEXTS.dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([1, None, 0]), pa.array(["ü", "a"], pa.string_view())),
        pa.RunEndEncodedArray.from_arrays([1, 2, 3], TEXTS),
    ],
    ids=lambda column: str(column.type),
)
def test_texts_and_ids_of_any_type(column: pa.Array, tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.arrow", {"text": column, "id": column})
    assert read(path) == ["a", NULL, "ü"]
    decode = column.type in {pa.binary(), pa.binary_view()}
    assert read_ids(path, Columns(id="id")) == [text.encode() if decode and text else text for text in ("a", None, "ü")]


@pytest.mark.parametrize(
    ("ids", "shown"),
    [
        (pa.array([7], pa.int8()), 7),
        (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([2**62], pa.timestamp("s")), "<value out of range: 4611686018427387904>"),
        (pa.array([3], pa.duration("ns")), "3"),
        (pa.array([b"\xff"]).view(pa.string()), '"\ufffd"'),
    ],
)
def test_any_id_can_be_shown(ids: pa.Array, shown: object) -> None:
    assert plain_id(ids, 0) == shown


@pytest.mark.parametrize(
    ("name", "ids", "found"),
    [
        ("a.parquet", [7, 9], [7, 9]),
        ("a.jsonl", [7, 9], [7, 9]),
        ("a.jsonl", ["x", None], ["x", None]),
        ("a.csv", [7, 9], ["7", "9"]),
        ("a.arrow", [1.5, 2.5], [1.5, 2.5]),
    ],
)
def test_ids_keep_their_type_except_in_csv(name: str, ids: list[Any], found: list[Any], tmp_path: Path) -> None:
    path = write_table(tmp_path / name, {"text": ["a", "b"], "id": ids})
    assert read_ids(path, Columns(id="id")) == found


def test_ids_of_another_type_in_a_later_file_are_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "0.jsonl", {"text": ["a"], "id": [1]})
    write_table(tmp_path / "1.jsonl", {"text": ["b"], "id": ["x"]})
    with pytest.raises(BulkError, match="column id must be int64 in every row; got string"):
        read_ids(tmp_path / "*.jsonl", Columns(id="id"))


def test_ids_that_are_texts_do_not_become_numbers(tmp_path: Path) -> None:
    lines = ['{"text": "a", "id": 7}'] * 1024 + ['{"text": "b", "id": "007"}']
    path = write_bytes(tmp_path / "a.jsonl", "\n".join(lines).encode())
    with pytest.raises(BulkConflict, match=r"cannot read .*a\.jsonl: column id must be int64 in every row; got string"):
        read_ids(path, Columns(id="id"))


def test_invalid_lines_do_not_decide_the_type_of_ids(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.jsonl", b"broken\n" * 1500 + b'{"text": "a", "id": 7}\n')
    assert read_ids(path, Columns(id="id")) == [None] * 1500 + [7]
    assert len(read(path)) == 1501


def test_lines_without_any_object_are_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra_serve.bulk.lines._MAX_LINES_BEFORE", 2048)
    path = write_bytes(tmp_path / "a.jsonl", b"text\n" * 5000)
    with pytest.raises(BulkConflict, match="lines must be JSON objects; none of the first 2,048 is one"):
        read(path)


@pytest.mark.parametrize("cell", ["[1]", "1.5", "true", "99999999999999999999"])
def test_ids_of_json_that_no_column_holds(cell: str, tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.jsonl", b'{"text": "a", "id": %b}\n' % cell.encode())
    with pytest.raises(BulkError, match="column id must have"):
        read_ids(path, Columns(id="id"))


BAD_JSON = b"""{"text": "a"}
{"text": null}

{"other": 1}
{"text": "\xff"}
{"text": 5}
[1]
{"text": "\\ud800"}
{"text": "b"
{"text": "c"}"""


def test_bad_rows_of_json_lines_are_problems(tmp_path: Path) -> None:
    found = read(write_bytes(tmp_path / "a.jsonl", BAD_JSON))
    kinds = [value.reason if isinstance(value, Problem) else value for value in found]
    no_object = "the line must be a JSON object; got something else"
    surrogate = "the line must be JSON; got no low surrogate in string"
    cut = "the line must be JSON; got unexpected end of data"
    assert kinds == [
        *("a", NULL.reason, NULL.reason, NOT_UTF8.reason, "text must be a text; got a number"),
        *(no_object, surrogate, cut, "c"),
    ]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ('"x"', "t must be a list of integers; got a text"),
        ("[1, true]", "t must be a list of integers; got another list"),
        ("[1, 1.0]", "t must be a list of integers; got another list"),
        ("[18446744073709551615]", "t must have 64-bit integers; got a larger one"),
        ("{}", "t must be a list of integers; got an object"),
        ("true", "t must be a list of integers; got a boolean"),
        ("null", NULL.reason),
    ],
)
def test_bad_token_ids_of_json_lines(cell: str, reason: str, tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.jsonl", b'{"t": [1]}\n{"t": %b}\n' % cell.encode())
    assert read(path, Columns(token_ids="t"))[1] == Problem(reason)


def test_bad_rows_of_text_and_tables_are_problems(tmp_path: Path) -> None:
    lines = write_bytes(tmp_path / "a.txt", b"\xef\xbb\xbffirst\r\n\n\xff\nlast")
    assert read(lines) == ["first", "", NOT_UTF8, "last"]
    column = pa.array([b"a", b"\xff", None]).cast(pa.binary())
    for name in ("a.parquet", "a.arrow"):
        assert read(write_table(tmp_path / name, {"text": column})) == ["a", NOT_UTF8, NULL]


def test_bad_rows_of_csv_keep_their_places(tmp_path: Path) -> None:
    rows = [b'1,"a, \n quoted"', b"2", b"3,b\xff", b"4,", b"5,x,y", b"6,c", b"7"]
    path = write_bytes(tmp_path / "a.csv", b"id,text\n" + b"\n".join(rows) + b"\n")
    few = Problem("the row must have 2 cells; got 1")
    expected = ["a, \n quoted", few, NOT_UTF8, "", Problem("the row must have 2 cells; got 3"), "c", few]
    assert read(path) == expected
    assert read_ids(path, Columns(id="id")) == ["1", None, "3", "4", None, "6", None]
    for row in range(8):
        assert read(path, start=Position(0, row)) == expected[row:]


@pytest.mark.parametrize("ending", ["\n", "\n\n"])
def test_csv_with_bad_rows_all_over_a_long_file(ending: str, tmp_path: Path) -> None:
    rows = [f"{row},text {row}" if row % 700 else f"{row}" for row in range(5000)]
    path = write_bytes(tmp_path / "a.csv", ("id,text\n" + "\n".join(rows) + ending).encode())
    found = read(path)
    assert len(found) == 5000
    assert [row for row, value in enumerate(found) if isinstance(value, Problem)] == list(range(0, 5000, 700))
    assert all(value == f"text {row}" for row, value in enumerate(found) if row % 700)


def test_csv_of_bad_rows_only_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MAX_BAD_ROWS", 50)
    path = write_bytes(tmp_path / "a.csv", b"id,text\n" + b"a;b\n" * 60)
    with pytest.raises(BulkError, match=r"cannot read .*Expected 2 columns, got 1"):
        read(path)


def test_a_line_over_the_limit_is_a_problem(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.txt", b"a\n" + b"x" * (2 * MAX_LINE_BYTES + 5) + b"\nb\n")
    first, long, last = read(path)
    assert isinstance(long, Problem)
    assert (first, long.reason, last) == ("a", "the line must have at most 16777216 bytes; got more", "b")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.arrows", "a.csv", "a.tsv", "a.csv.gz", "a.jsonl"])
@pytest.mark.parametrize(
    ("columns", "missing"), [(Columns("t"), "t"), (Columns(text_pair="p"), "p"), (Columns(id="key"), "key")]
)
def test_a_missing_column_is_an_error_that_names_the_others(
    name: str, columns: Columns, missing: str, tmp_path: Path
) -> None:
    path = write_table(tmp_path / name, {"id": ["b"], "text": ["a"]})
    with pytest.raises(BulkConflict, match=rf"^cannot read .*/{name}: .* a column {missing}; it has id, text$"):
        read(path, columns)


def test_a_missing_column_of_json_is_found_in_the_first_rows(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.jsonl", b'{"text": "a"}\n' * 5000)
    chunks = Reader(find_inputs(str(path)), Columns(id="key")).read()
    with pytest.raises(BulkConflict, match="must have a column key"):
        next(chunks)


def test_lines_of_text_have_no_columns(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.txt", {"text": ["a"]})
    for columns in (Columns("t"), Columns(id="id"), Columns(text_pair="p"), Columns(token_ids="t")):
        with pytest.raises(BulkConflict, match="lines of text have no columns"):
            read(path, columns)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.arrows", "a.csv"])
def test_a_column_that_is_there_twice_is_an_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])
    if name == "a.csv":
        path.write_text("text,text\na,b\n")
    elif name == "a.parquet":
        pq.write_table(twice, path)
    else:
        with (pa.ipc.new_file if name == "a.arrow" else pa.ipc.new_stream)(path, twice.schema) as writer:
            writer.write_table(twice)
    with pytest.raises(BulkConflict, match="the input must have one column text; it has 2"):
        read(path)


def test_a_quote_without_an_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_CSV_BLOCK_BYTES", 2**20)
    path = write_bytes(tmp_path / "a.csv", b'id,text\n1,"open\n' + b"2,b\n" * 2**20)
    with pytest.raises(BulkError, match="a row has more than 1 MiB, or a quoted cell has no end"):
        read(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_rows_need_no_ending(name: str, ending: str, tmp_path: Path) -> None:
    write_table(tmp_path / f"{name}{ending}", {"text": ROWS}).rename(tmp_path / name)
    assert read(tmp_path / name) == ROWS


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_column_of_another_type_is_an_error(name: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / name, {"text": [1, 2]})
    with pytest.raises(BulkError, match="column text must have texts; got int64"):
        read(path)
    with pytest.raises(BulkError, match="column text must have lists of integers; got int64"):
        read(path, Columns(token_ids="text"))


def test_a_column_of_nulls_has_problems(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.arrow", {"text": pa.nulls(2)})
    assert read(path) == [NULL, NULL]
    assert read(path, Columns(token_ids="text")) == [NULL, NULL]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_csv_has_no_token_ids(name: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / name, {"t": ["a"]})
    with pytest.raises(BulkError, match="token ids must be lists, which CSV does not have"):
        read(path, Columns(token_ids="t"))


@pytest.mark.parametrize("name", NAMES[:7])
def test_a_file_without_rows(name: str, tmp_path: Path) -> None:
    columns = {"text": pa.array([], pa.string())}
    assert read(write_table(tmp_path / name, columns)) == []


def test_an_empty_file_of_lines_has_no_rows(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.txt"):
        assert read(write_bytes(tmp_path / name, b"")) == []


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _corrupt(path: Path) -> None:
    path.write_bytes(os.urandom(500))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.arrows", "a.jsonl.gz", "a.csv.zst", "a.txt.gz"])
@pytest.mark.parametrize("damage", [_truncate, _corrupt])
def test_a_damaged_file_is_one_line(name: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = write_table(tmp_path / name, {"text": ROWS})
    damage(path)
    with pytest.raises(BulkError, match=r"^cannot read .*/a\.\S+: ") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.jsonl", "*.parquet"])
def test_input_that_does_not_exist(name: str, tmp_path: Path) -> None:
    with pytest.raises(BulkError, match="No such file or directory"):
        find_inputs(str(tmp_path / name))


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)  # its descriptor may be that of another file
    with pytest.raises(BulkError, match="cannot read standard input: it is closed"):
        next(Reader([InputFile("-", "text")], Columns()).read())


def test_input_of_an_unknown_form(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    with pytest.raises(BulkError, match=r"the format of .* must be one of parquet, arrow"):
        find_inputs(str(tmp_path / "a.pdf"))
    assert find_inputs(str(tmp_path / "a.pdf"), "text")[0].format == "text"
    with pytest.raises(BulkError, match="it is a folder"):
        find_inputs(str(tmp_path))
    with pytest.raises(BulkError, match="Parquet is compressed inside"):
        file_format("a.parquet.gz")
    for format_ in (None, "parquet"):
        with pytest.raises(BulkError, match="the format of standard input"):
            find_inputs("-", format_)
    assert find_inputs("-", "jsonl") == (InputFile("-", "jsonl"),)


def test_a_name_with_brackets_is_a_file_and_not_a_pattern(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a[1].jsonl", {"text": ["a"]})
    assert read(path) == ["a"]


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.jsonl", {"text": ROWS})
    chunks = Reader(find_inputs(str(path)), Columns()).read()
    next(chunks)
    with path.open("ab") as stream:
        stream.write(b'{"text": "late"}\n')
    with pytest.raises(BulkError, match="it changed while it was read"):
        list(chunks)


def test_gzip_of_several_members_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert read(path) == ["a", "b"]


def test_rows_of_tables_are_known_and_others_estimated(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.arrow"):
        write_table(tmp_path / name, {"text": ROWS})
    assert Reader(find_inputs(str(tmp_path / "*")), Columns()).count_rows() == 5000
    for name in ("a.jsonl", "a.arrows"):
        reader = Reader(find_inputs(str(write_table(tmp_path / name, {"text": ROWS}))), Columns())
        assert (reader.count_rows(), reader.estimated_rows) == (None, None)
        list(reader.read())
        assert reader.estimated_rows == 2500


def test_columns_that_contradict_each_other() -> None:
    with pytest.raises(BulkError, match="must have texts or token ids"):
        Columns(text_pair="b", token_ids="t")
    with pytest.raises(BulkError, match="need a column of token ids"):
        Columns(segment_ids="s")
