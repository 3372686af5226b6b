"""Reads a request's body under a size and a time limit, which uvicorn lacks, and parses it as JSON.

A body can be cheap to send and expensive to parse: megabytes of `[],[],…` or `{"a":{"a":…` would become millions of
objects that block the event loop. So lists and members are counted before the body is parsed.
No error message repeats what the client sent.
"""

from __future__ import annotations

import asyncio
import math
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from starlette.types import Receive

from electra_serve.errors import Cancelled, DeadlineExceeded, MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from electra_serve.runtime.work_thread import await_loop_turn
from electra_serve.serving.request_context import Deadline
from electra_serve.settings.schema import RestSettings

JSON_MEDIA_TYPE: Final = "application/json"
BINARY_MEDIA_TYPE: Final = "application/octet-stream"
CONTENT_TYPE: Final = "content-type"
CONTENT_ENCODING: Final = "content-encoding"
TRANSFER_ENCODING: Final = "transfer-encoding"
MAX_KEYS: Final = 64  # Most braces and colons. A valid request has one brace and eight colons.
# Most escaped surrogates and backslashes that are searched for a half pair, in some milliseconds
MAX_ESCAPES: Final = 16_384
MAX_DEPTH: Final = 2  # deepest nesting of lists: a list of sequences, each a list of ids

_DEPTHS: Final = ("", "one", "two", "three")
_LENGTH_PATTERN: Final = re.compile(r"[0-9]{1,18}")
_NO_MARKS: Final = bytes(set(range(256)) - set(b'"[]{:'))
_STRING: Final = re.compile(rb'"[^"]*+"?')  # among the marks that are left of a body
_ESCAPE: Final = re.compile(
    rb"\\(?:\\(?:\\\\)*+"  # escaped backslashes begin no escape
    rb"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)


@dataclass(frozen=True, slots=True)
class BodyKind:
    """Content types and content encodings of the requests of a route, besides none and identity."""

    media_types: tuple[str, ...]
    codings: tuple[str, ...] = ()


JSON_BODY: Final = BodyKind((JSON_MEDIA_TYPE,))


class SlowBody(MalformedRequest):
    """The client did not send its whole body in time; its connection is of no further use."""


async def read_body(
    headers: Mapping[str, str],
    receive: Receive,
    settings: RestSettings,
    deadline: Deadline | None = None,
    kind: BodyKind = JSON_BODY,
) -> bytes:
    """Reads the whole body of a request. A body without a content type counts as JSON.

    Raises:
        MalformedRequest: Content-Length is not a number.
        UnsupportedMediaType: Another content type or encoding than those of `kind`.
        PayloadTooLarge: More than `max_body_bytes`, by Content-Length or by what arrives.
        SlowBody: Not there within `body_timeout_s`.
        DeadlineExceeded: Not there before the deadline, which comes earlier.
        Cancelled: The client left while sending.
    """
    _check_headers(headers, settings.max_body_bytes, kind)
    remaining_s = math.inf if deadline is None else deadline.remaining_s()
    try:
        async with asyncio.timeout(min(settings.body_timeout_s, remaining_s)):
            return await _collect(receive, settings.max_body_bytes)
    except TimeoutError as error:
        if remaining_s < settings.body_timeout_s:
            raise DeadlineExceeded("the deadline passed before the whole body arrived") from error
        raise SlowBody(f"the whole body must arrive within {settings.body_timeout_s:g} s") from error


def declared_length(headers: Mapping[str, str], max_body_bytes: int) -> int:
    """Returns the bytes that a body may take: its Content-Length, or `max_body_bytes` without one."""
    length = headers.get("content-length", "")
    return min(int(length), max_body_bytes) if _LENGTH_PATTERN.fullmatch(length) else max_body_bytes


def reject_bulk(body: bytes, max_sequences: int, max_members: int = MAX_KEYS, *, max_depth: int = MAX_DEPTH) -> None:
    """Counts the lists and members of a body before it is parsed, up to their limits: a few passes at C speed.

    Raises:
        PayloadTooLarge: More lists than ids, segments, mask and outputs of `max_sequences` sequences need, or more
            strings than pairs of texts.
        MalformedRequest: More than `max_members` braces and colons, or lists nested deeper than `max_depth`.
    """
    max_lists = 3 * (max_sequences + max_depth - 1) + max_depth - 1
    if _counts_within(body, max_lists, max_members):
        return
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = unescaped.translate(None, _NO_MARKS)
    if marks.count(b'"') > 4 * (max_sequences + max_members):
        raise PayloadTooLarge(f"a request takes at most {max_sequences} sequences; received more strings")
    lists = depth = members = 0
    for mark in _STRING.sub(b"", marks):
        match mark:
            case 0x5B:  # [
                lists, depth = lists + 1, depth + 1
            case 0x5D:  # ]
                depth -= 1
            case _:  # { and :
                members += 1
        if depth < 0:
            return  # no JSON, as the parser will find
        if depth > max_depth:
            raise MalformedRequest(f"lists nest at most {_DEPTHS[max_depth]} deep; received deeper ones")
        if lists > max_lists:
            raise PayloadTooLarge(
                f"a request takes at most {max_sequences} sequences, {max_lists} lists in all; received more"
            )
        if members > max_members:
            raise MalformedRequest(f"a request has at most {max_members} members; received more")


def parse_json(body: bytes, *, replace_surrogates: bool = True) -> object:
    """Parses strict JSON: UTF-8, no NaN, at most 1024 levels deep; raises `MalformedRequest` with the position only.

    An escaped half of a surrogate pair becomes U+FFFD, as in both tokenizers: clients that cut a text inside an emoji
    send one. It is rejected without `replace_surrogates`, as in names, and with more than `MAX_ESCAPES` others.
    Integers beyond 64 bits are parsed as floats.
    """
    try:
        return _loads(body)
    except orjson.JSONDecodeError as error:
        repaired = _repaired(body, replace_surrogates=replace_surrogates)
        if repaired == body:
            raise _malformed(error) from error
    await_loop_turn()
    try:
        return _loads(repaired)
    except orjson.JSONDecodeError as error:
        raise _malformed(error) from error


def _loads(body: bytes) -> object:
    parsed: object = orjson.loads(body)
    return parsed


def _repaired(body: bytes, *, replace_surrogates: bool) -> bytes:
    """Returns JSON that orjson parses; every character keeps its position."""
    if body.startswith(BOM_UTF8):
        body = b" " + body[len(BOM_UTF8) :]
    escapes = body.count(rb"\ud") + body.count(rb"\uD") + body.count(rb"\\")
    if not replace_surrogates or escapes > MAX_ESCAPES:
        return body
    return _ESCAPE.sub(lambda match: b"\\ufffd" if match["half"] else match[0], body)


def _malformed(error: orjson.JSONDecodeError) -> MalformedRequest:
    return MalformedRequest(f"the body must be JSON in UTF-8; it stops being so at character {error.pos}")


def content_coding(headers: Mapping[str, str]) -> str:
    """Returns the content encoding of a request; "" for none."""
    coding = headers.get(CONTENT_ENCODING, "").strip().lower()
    return "" if coding == "identity" else coding


def _check_headers(headers: Mapping[str, str], max_body_bytes: int, kind: BodyKind) -> None:
    media_type = headers.get(CONTENT_TYPE, "").partition(";")[0].strip().lower()
    if media_type not in {*kind.media_types, ""}:
        allowed = " or ".join(kind.media_types)
        raise UnsupportedMediaType(f"`{CONTENT_TYPE}` must be {allowed}; got another", field=CONTENT_TYPE)
    if content_coding(headers) not in {*kind.codings, ""}:
        allowed = " or ".join(("identity", *kind.codings))
        raise UnsupportedMediaType(f"`{CONTENT_ENCODING}` must be {allowed}; got another", field=CONTENT_ENCODING)
    if headers.get(TRANSFER_ENCODING, "chunked").strip().lower() != "chunked":
        raise UnsupportedMediaType(f"`{TRANSFER_ENCODING}` must be chunked; got another", field=TRANSFER_ENCODING)
    length = headers.get("content-length", "0")
    if not _LENGTH_PATTERN.fullmatch(length):
        raise MalformedRequest("content-length must be a whole number of at most 18 digits", field="content-length")
    if int(length) > max_body_bytes:
        raise _too_large(max_body_bytes)


async def _collect(receive: Receive, max_body_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("the client left before its request was complete")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > max_body_bytes:
            raise _too_large(max_body_bytes)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(max_body_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body must have at most {max_body_bytes} bytes; received more")


def _counts_within(body: bytes, max_lists: int, max_members: int) -> bool:
    return body.count(b"[") <= max_lists and body.count(b"{") + body.count(b":") <= max_members
