"""Refuses bodies that are cheap to send and dear to parse, before they are parsed.

A request needs a handful of keys and one list per sequence. Four megabytes of `[],[],…` or `{"a":{"a":…` would be
millions of objects instead, each of which the interpreter allocates and its collector walks through while every
other request waits. So brackets and colons are counted first; inside strings they mean nothing and do not count. The
count ends with the first one too many.
"""

from __future__ import annotations

import re
from typing import Final

from electra_serve.errors import MalformedRequest, PayloadTooLarge

MAX_KEYS: Final = 64
"""Most braces and colons: a request has one and eight, and what is unknown is refused by name later on."""
MAX_DEPTH: Final = 2
"""How deep lists nest: one of sequences, each one of ids."""
_STRING_OR_MARK: Final = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)|[][{:]', re.DOTALL)


def refuse_bulk(body: bytes, max_sequences: int) -> None:
    """Checks how many lists and members a body has.

    Args:
        body: JSON, supposedly.
        max_sequences: Most sequences that any model here takes.

    Raises:
        PayloadTooLarge: It has more lists than ids, segments, mask and outputs of so many sequences need.
        MalformedRequest: It has more than `MAX_KEYS` members, or its lists nest deeper than any request's.
    """
    max_lists = 3 * (max_sequences + 1) + 1
    if _counts_within(body, max_lists):
        return
    lists = depth = members = 0
    for match in _STRING_OR_MARK.finditer(body):
        match match[0]:
            case b"[":
                lists, depth = lists + 1, depth + 1
            case b"]":
                depth -= 1
            case b"{" | b":":
                members += 1
        if depth > MAX_DEPTH:
            raise MalformedRequest("lists nest at most two deep; received deeper ones")
        if lists > max_lists:
            raise PayloadTooLarge(
                f"a request takes at most {max_sequences} sequences, {max_lists} lists in all; received more"
            )
        if members > MAX_KEYS:
            raise MalformedRequest(f"a request has at most {MAX_KEYS} members; received more")


def _counts_within(body: bytes, max_lists: int) -> bool:
    return body.count(b"[") <= max_lists and body.count(b"{") + body.count(b":") <= MAX_KEYS
