"""Counts a message's fields on the wire, before anything is made of them.

Four megabytes can hold millions of empty tensors or unknown fields. Each becomes an object, and all of them together
seconds in which no other request is answered. Counting stops at the bound, so it costs no more than that many steps.

Wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message

from electra_serve.errors import PayloadTooLarge

_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_MIN_FIELD_BYTES: Final = 2
"""A tag, and a number or a length. So a small message cannot have many fields, and need not be walked through."""


def refuse_bulk(message_type: type[Message], data: bytes, max_fields: int) -> None:
    """Checks how many fields a message has, those of messages inside it included.

    What is not a message is left to the parser to refuse.

    Raises:
        PayloadTooLarge: There are more than `max_fields`.

    Example:
        >>> from electra_serve.proto.electra.v1 import encoder_pb2 as pb
        >>> refuse_bulk(pb.EncodeRequest, pb.EncodeRequest(model="m", truncate=True).SerializeToString(), 2)
    """
    if len(data) < max_fields * _MIN_FIELD_BYTES:
        return
    spans = [(message_type.DESCRIPTOR, 0, len(data))]
    fields = 0
    while spans:
        message, at, end = spans.pop()
        while 0 <= at < end:
            fields += 1
            if fields > max_fields:
                raise PayloadTooLarge(f"a message takes at most {max_fields} fields; received more")
            tag, at = _varint(data, at, end)
            if tag >> 3 == 0:  # no field has this number: the parser stops here too
                return
            begin, at = _skip(data, at, end, tag & 7)
            field = message.fields_by_number.get(tag >> 3)
            if field is not None and field.message_type is not None and tag & 7 == _LENGTH_DELIMITED and at >= 0:
                spans.append((field.message_type, begin, at))


def _skip(data: bytes, at: int, end: int, wire_type: int) -> tuple[int, int]:
    """Where a field's content begins and ends; an end of -1 where it is no field."""
    if at < 0:
        return at, -1
    if wire_type == _VARINT:
        return at, _varint(data, at, end)[1]
    length = _FIXED_BYTES.get(wire_type, -1)
    if wire_type == _LENGTH_DELIMITED:
        length, at = _varint(data, at, end)
    return at, at + length if at >= 0 and 0 <= length <= end - at else -1


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at` and where it ends; an end of -1 where there is none."""
    value = 0
    for index, byte in enumerate(data[at : min(at + 10, end)]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    return 0, -1
