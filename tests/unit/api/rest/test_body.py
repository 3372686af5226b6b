from __future__ import annotations

import contextlib
import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from electra_serve.api.rest.body import MAX_ESCAPES, MAX_KEYS, SlowBody, parse_json, read_body, reject_bulk
from electra_serve.errors import Cancelled, DeadlineExceeded, MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from electra_serve.serving.request_context import Deadline
from electra_serve.settings.schema import RestSettings
from tests.unit.api.rest.asgi import DISCONNECT, Wire, body_message
from tests.unit.api.rest.rejections import rejection

JSON = Headers({"content-type": "application/json"})
LIMIT = RestSettings(max_body_bytes=8)
MAX_SEQUENCES = 4
MAX_LISTS = 3 * (MAX_SEQUENCES + 1) + 1


async def test_chunks_are_joined() -> None:
    wire = Wire(body_message(b"[1,", more=True), body_message(b"", more=True), body_message(b"2]"))
    assert await read_body(JSON, wire.receive, LIMIT) == b"[1,2]"


@pytest.mark.parametrize("chunks", [(b"12345678",), (b"1234", b"5678"), (b"12345678", b"")])
async def test_a_body_of_exactly_the_limit_is_read(chunks: tuple[bytes, ...]) -> None:
    wire = Wire(*(body_message(chunk, more=True) for chunk in chunks), body_message(b""))
    assert await read_body(JSON, wire.receive, LIMIT) == b"12345678"


@pytest.mark.parametrize("chunks", [(b"123456789",), (b"12345678", b"9")])
async def test_a_byte_more_is_rejected_as_soon_as_it_is_there(chunks: tuple[bytes, ...]) -> None:
    wire = Wire(*(body_message(chunk, more=True) for chunk in chunks))
    with pytest.raises(PayloadTooLarge, match="at most 8 bytes; received more"):
        await read_body(JSON, wire.receive, LIMIT)


async def test_content_length_is_believed_before_anything_is_read() -> None:
    exactly = Headers({"content-type": "application/json", "content-length": "8"})
    assert await read_body(exactly, Wire(body_message(b"12345678")).receive, LIMIT) == b"12345678"
    more = Headers({"content-type": "application/json", "content-length": "9"})
    with pytest.raises(PayloadTooLarge):
        await read_body(more, Wire().receive, LIMIT)


@pytest.mark.parametrize("length", ["-1", "+1", "1.0", "", "٣", "9" * 19])
async def test_content_length_must_be_a_number(length: str) -> None:
    headers = Headers(raw=[(b"content-type", b"application/json"), (b"content-length", length.encode())])
    with pytest.raises(MalformedRequest) as caught:
        await read_body(headers, Wire().receive, LIMIT)
    assert caught.value.field == "content-length"


@pytest.mark.parametrize("value", ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8"])
async def test_json_is_taken(value: str) -> None:
    headers = Headers({"content-type": value, "content-encoding": "identity"})
    assert await read_body(headers, Wire(body_message(b"1")).receive, LIMIT) == b"1"


@pytest.mark.parametrize("headers", [{}, {"content-type": ""}, {"content-encoding": ""}])
async def test_without_a_content_type_a_body_is_json(headers: dict[str, str]) -> None:
    assert await read_body(Headers(headers), Wire(body_message(b"1")).receive, LIMIT) == b"1"


@pytest.mark.parametrize("value", ["text/plain", "application/jsonl", "text/json", "application/x-www-form-urlencoded"])
async def test_other_content_types_are_rejected(value: str) -> None:
    headers = Headers({"content-type": value})
    with pytest.raises(UnsupportedMediaType, match="`content-type` must be application/json; got another") as caught:
        await read_body(headers, Wire().receive, LIMIT)
    assert caught.value.field == "content-type"


@pytest.mark.parametrize("value", ["gzip", "br", "identity, gzip"])
async def test_compressed_bodies_are_rejected(value: str) -> None:
    headers = Headers({"content-type": "application/json", "content-encoding": value})
    with pytest.raises(UnsupportedMediaType) as caught:
        await read_body(headers, Wire().receive, LIMIT)
    assert caught.value.field == "content-encoding"


async def test_other_transfer_codings_are_rejected() -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        await read_body({**JSON, "transfer-encoding": "gzip, chunked"}, Wire(body_message(b"{}")).receive, LIMIT)
    assert caught.value.field == "transfer-encoding"
    assert await read_body({**JSON, "transfer-encoding": "Chunked"}, Wire(body_message(b"{}")).receive, LIMIT) == b"{}"


async def test_a_body_that_does_not_end_in_time_is_rejected() -> None:
    wire = Wire(body_message(b"[1,", more=True))
    with pytest.raises(SlowBody, match=r"within 0\.001 s"):
        await read_body(JSON, wire.receive, RestSettings(body_timeout_s=0.001))


@pytest.mark.parametrize(("left_s", "kind"), [(0.001, DeadlineExceeded), (60, SlowBody)])
async def test_the_earlier_of_deadline_and_body_timeout_counts(left_s: float, kind: type[Exception]) -> None:
    wire = Wire(body_message(b"[1,", more=True))
    with pytest.raises(kind):
        await read_body(JSON, wire.receive, RestSettings(body_timeout_s=0.1), Deadline(time.monotonic() + left_s))


async def test_a_client_that_leaves_while_sending_cancels() -> None:
    with pytest.raises(Cancelled):
        await read_body(JSON, Wire(body_message(b"[1,", more=True), DISCONNECT).receive, LIMIT)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1}x',
        b"{'a':1}",
        b"[NaN]",
        b"[Infinity]",
        b"[01]",
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b'"\\ud80"',
        b'"\\ud800',
        b'"\\u',
        b"\\ud800",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"{}\xef\xbb\xbf",
        "{}".encode("utf-16"),
        b"[" * 2000 + b"]" * 2000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
    ],
)
def test_what_is_not_strict_json_is_rejected(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"JSON in UTF-8; it stops being so at character \d+$"):
        parse_json(body)


def test_a_byte_order_mark_is_skipped() -> None:
    assert parse_json(b'\xef\xbb\xbf{"text":"a"}') == {"text": "a"}
    with pytest.raises(MalformedRequest, match=r"at character 2$"):
        parse_json(b"\xef\xbb\xbf{x}")


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"cut \ude00 emoji", "cut \ufffd emoji"),
        (r"cut \uD83D emoji", "cut \ufffd emoji"),
        (r"\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\ud83d\ud83d\ude00\ude00", "\ufffd\U0001f600\ufffd"),
        (r"\\ud83d\ude00", "\\ud83d\ufffd"),
        (r"\\\ud83d\\\\ud83d", "\\\ufffd\\\\ud83d"),
        (r"\"\ud83d\n\udfff\u0041", '"\ufffd\n\ufffdA'),
        (r"\ud83dude00", "\ufffdude00"),
    ],
)
def test_half_a_surrogate_pair_is_replaced(escaped: str, text: str) -> None:
    assert parse_json(f'{{"text":"{escaped}"}}'.encode()) == {"text": text}
    assert parse_json(f'\ufeff["{escaped}",1]'.encode()) == [text, 1]


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=20))
def test_every_string_that_json_writes_is_read(text: str) -> None:
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert parse_json(json.dumps([text]).encode()) == [expected]


@pytest.mark.parametrize("piece", [b"\\ud800", b"\\\\", b"\\ud83d\\ude00", b"\\"])
def test_surrogates_are_looked_for_in_linear_time(piece: bytes) -> None:
    def seconds(count: int) -> float:
        started = time.process_time()
        rejection(lambda: parse_json(b'["' + piece * count + b'\\ud800"]'))
        return time.process_time() - started

    assert min(seconds(100_000) for _ in range(3)) < 20 * min(seconds(10_000) for _ in range(5)) + 0.02


@pytest.mark.parametrize("piece", [rb"\ud83d\ude00", rb"\uD83D\uDE00", rb"\\"])
def test_half_a_pair_is_not_looked_for_among_too_many_escapes(piece: bytes) -> None:
    def body(escapes: int) -> bytes:
        return b'["' + piece * ((escapes - 1) // (2 if piece != rb"\\" else 1)) + rb'\ud800"]'

    parse_json(body(MAX_ESCAPES - 1))
    with pytest.raises(MalformedRequest):
        parse_json(body(MAX_ESCAPES + 3))


def test_half_a_pair_is_malformed_where_names_are_read() -> None:
    with pytest.raises(MalformedRequest):
        parse_json(b'{"name":"\\ud83d"}', replace_surrogates=False)


def test_a_mistake_behind_half_a_pair_is_located() -> None:
    with pytest.raises(MalformedRequest, match=r"at character 10$"):
        parse_json(rb'["\ud800",x]')


@given(st.binary())
def test_any_bytes_are_json_or_malformed(body: bytes) -> None:
    error = rejection(lambda: parse_json(body))
    assert error is None or (type(error) is MalformedRequest and len(error.message) < 100)


def test_integers_beyond_64_bits_are_floats() -> None:
    assert parse_json(b"[18446744073709551615,18446744073709551616]") == [2**64 - 1, float(2**64)]
    assert type(parse_json(b"1180591620717411303424")) is float


def test_the_largest_request_passes() -> None:
    rows = [[1, 2]] * MAX_SEQUENCES
    body = {"token_ids": rows, "segment_ids": rows, "padding_mask": rows, "outputs": ["cls_output"]}
    reject_bulk(orjson.dumps(body), MAX_SEQUENCES)
    pairs = {"text": [["a", "b"]] * MAX_SEQUENCES, "outputs": []}
    reject_bulk(orjson.dumps(pairs), MAX_SEQUENCES)


def test_lists_from_both_sides() -> None:
    reject_bulk(b"[]," * MAX_LISTS, MAX_SEQUENCES)
    with pytest.raises(PayloadTooLarge, match="4 sequences, 16 lists in all"):
        reject_bulk(b"[]," * (MAX_LISTS + 1), MAX_SEQUENCES)


def test_strings_from_both_sides() -> None:
    lists = b"[]," * (MAX_LISTS - 1) + b"["  # brackets enough to look closer
    most = 2 * (MAX_SEQUENCES + MAX_KEYS)
    reject_bulk(lists + b'"[",' * most, MAX_SEQUENCES)
    with pytest.raises(PayloadTooLarge, match="more strings"):
        reject_bulk(lists + b'"[",' * (most + 1), MAX_SEQUENCES)


@pytest.mark.parametrize("marks", [b"]" * 100_000, b'"' + b"\\\\" * 100_000, b'"' + b"\\" * 99_999])
def test_what_is_no_json_is_left_to_the_parser(marks: bytes) -> None:
    lists = b"[]," * MAX_LISTS
    reject_bulk(lists + marks + b"[", MAX_SEQUENCES)


def test_deep_lists_are_no_request() -> None:
    with pytest.raises(MalformedRequest, match="two deep"):
        reject_bulk(b"[" * 100_000, MAX_SEQUENCES)


@pytest.mark.parametrize("piece", [b"{", b'"k":1,'])
def test_members_from_both_sides(piece: bytes) -> None:
    reject_bulk(piece * MAX_KEYS, MAX_SEQUENCES)
    with pytest.raises(MalformedRequest, match="at most 64 members"):
        reject_bulk(piece * (MAX_KEYS + 1), MAX_SEQUENCES)


@given(st.text(alphabet='[{:\\"a\n', max_size=400))
def test_what_stands_in_strings_does_not_count(text: str) -> None:
    reject_bulk(orjson.dumps({"text": [text, [text, text]]}), MAX_SEQUENCES)


@given(st.binary(max_size=300) | st.text(alphabet='[]{}:\\",', max_size=300).map(str.encode))
def test_only_bodies_with_many_brackets_or_colons_are_rejected(body: bytes) -> None:
    few = body.count(b"[") <= MAX_LISTS and body.count(b"{") <= MAX_KEYS and body.count(b":") <= MAX_KEYS
    with contextlib.nullcontext() if few else contextlib.suppress(MalformedRequest, PayloadTooLarge):
        reject_bulk(body, MAX_SEQUENCES)


def test_a_string_that_never_ends_is_passed_over_once() -> None:
    reject_bulk(b'"' + b'\\"[' * 100_000, MAX_SEQUENCES)
