"""Parses messages from bytes: bounded in cost, and strict where protobuf is lenient.

A few megabytes can hold a million empty tensors or unknown fields, which would block the event loop for seconds. So
fields are counted on the wire first. Unknown fields are rejected, as in JSON: a misspelled option would give a wrong
response that looks right. Wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from electra_serve.errors import MalformedRequest, PayloadTooLarge
from electra_serve.settings.model_names import MAX_NAME

M = TypeVar("M", bound=Message)

SMALL_MESSAGE_FIELDS: Final = 64  # more than any message has that carries no sequences

MAX_SMALL_BYTES: Final = 4096  # largest message of health and reflection, which need no key

_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_GROUP_MARKS: Final = frozenset((3, 4))
PACKED_PER_FIELD: Final = 16  # so many packed numbers count as a field
_TEXTS: Final = frozenset(("query", "first", "second", "id"))  # fields that are no names, or come back as they are
_UNPACKED_TYPES: Final = frozenset((FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING))


def parse(
    message_type: type[M],
    data: bytes,
    *,
    max_fields: int = SMALL_MESSAGE_FIELDS,
    packed_per_field: int = PACKED_PER_FIELD,
    strict: bool = True,
) -> M:
    """Parses one message of at most `max_fields`, nested ones included; checks the names of its own fields only.

    Raises:
        MalformedRequest: The bytes are no such message, a string is not UTF-8, or a field is unknown and `strict`.
        PayloadTooLarge: There are more fields than `max_fields`, in a message of more than as many bytes.
    """
    if len(data) > max_fields:  # a field or a group's mark has at least one byte
        reject_bulk(message_type, data, max_fields, packed_per_field)
    try:
        message = message_type.FromString(data)
    except DecodeError as error:
        raise _malformed(message_type, data) from error
    if strict:
        reject_unknown_fields(message)
    return message


def parse_small(message_type: type[M], data: bytes) -> M:
    """Parses a message of health or reflection on the event loop, and ignores unknown fields.

    Raises `MalformedRequest` for other bytes, and `PayloadTooLarge` for more than `MAX_SMALL_BYTES`.
    """
    if len(data) > MAX_SMALL_BYTES:
        raise PayloadTooLarge(f"a message must be at most {MAX_SMALL_BYTES} bytes; got {len(data)}")
    try:
        return message_type.FromString(data)
    except DecodeError as error:
        raise _malformed(message_type, data) from error


def reject_bulk(
    message_type: type[Message], data: bytes, max_fields: int, packed_per_field: int = PACKED_PER_FIELD
) -> None:
    """Raises `PayloadTooLarge` for a message with more than `max_fields` fields, before any object is created."""
    if has_more_fields(message_type, data, max_fields, packed_per_field):
        raise PayloadTooLarge(f"a message takes at most {max_fields} fields; received more")


def has_more_fields(
    message_type: type[Message], data: bytes, max_fields: int, packed_per_field: int = PACKED_PER_FIELD
) -> bool:
    """Counts a message's fields, those of nested messages and packed numbers included, up to the limit.

    Raises `MalformedRequest` for a group: the .proto has none, and millions fit into a message.

    >>> from electra_serve.proto.electra.v1 import encoder_pb2 as pb
    >>> data = pb.EncodeRequest(model="m", truncate=True).SerializeToString()
    >>> has_more_fields(pb.EncodeRequest, data, 2), has_more_fields(pb.EncodeRequest, data, 1)
    (False, True)
    """
    spans = [(message_type.DESCRIPTOR, 0, len(data))]
    fields = 0
    while spans:
        message, at, end = spans.pop()
        while 0 <= at < end:
            fields += 1
            if fields > max_fields:
                return True
            tag, at = _varint(data, at, end)
            if tag >> 3 == 0:  # 0 is no field number: the parser stops here too
                return False
            if tag & 7 in _GROUP_MARKS:
                raise MalformedRequest(f"a message must have no groups; received number {tag >> 3}")
            begin, at = _skip(data, at, end, tag & 7)
            field = message.fields_by_number.get(tag >> 3)
            if field is None or tag & 7 != _LENGTH_DELIMITED or at < 0:
                continue
            if field.message_type is not None:
                spans.append((field.message_type, begin, at))
            elif field.type not in _UNPACKED_TYPES:
                fields += (at - begin) // packed_per_field
    return fields > max_fields


def cut_names(message: M) -> M:
    """Cuts names and request ids to one character more than valid ones have; returns the message.

    protobuf decodes a string each time it is read: megabytes of it would take the event loop 10 ms.
    """
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated or field.name in _TEXTS:
            continue
        if field.type == field.TYPE_STRING and len(name := getattr(message, field.name)) > MAX_NAME:
            setattr(message, field.name, name[: MAX_NAME + 1])
        elif field.message_type is not None and message.HasField(field.name):
            cut_names(getattr(message, field.name))
    return message


def reject_unknown_fields(message: Message, field: str | None = None) -> None:
    """Raises `MalformedRequest` if a message has a field that is not in the .proto; nested messages are not checked."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        known = ", ".join(f"{f.name} = {f.number}" for f in message.DESCRIPTOR.fields) or "none"
        raise MalformedRequest(
            f"{message.DESCRIPTOR.full_name} has the fields {known}; received number {unknown[0].field_number}",
            field=field,
        )


def _malformed(message_type: type[Message], data: bytes) -> MalformedRequest:
    field = _invalid_string(message_type, data)
    if field is None:
        name = message_type.DESCRIPTOR.full_name
        return MalformedRequest(f"a message must be a valid {name}; got {len(data)} bytes that are not")
    return MalformedRequest(f"`{field}` must be UTF-8; got bytes that are not", field=field)


def _invalid_string(message_type: type[Message], data: bytes) -> str | None:
    """Returns the path of a string that is not UTF-8, as some clients send it; None if the fault is another one."""
    spans = [(message_type.DESCRIPTOR, 0, len(data), "")]
    seen: Counter[str] = Counter()
    while spans:
        message, at, end, parent = spans.pop()
        while 0 <= at < end:
            tag, at = _varint(data, at, end)
            if tag >> 3 == 0:
                return None
            begin, at = _skip(data, at, end, tag & 7)
            field = message.fields_by_number.get(tag >> 3)
            if field is None or tag & 7 != _LENGTH_DELIMITED or at < 0:
                continue
            path = f"{parent}{field.name}"
            if field.is_repeated:
                seen[path] += 1
                path = f"{path}[{seen[path] - 1}]"
            if field.message_type is not None:
                spans.append((field.message_type, begin, at, f"{path}."))
            elif field.type == field.TYPE_STRING and not _is_utf8(data[begin:at]):
                return path.removeprefix("request.")  # what a stream wraps each request in
    return None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _skip(data: bytes, at: int, end: int, wire_type: int) -> tuple[int, int]:
    """Returns the start and end of a field's content; the end is -1 if it is no field."""
    if at < 0:
        return at, -1
    if wire_type == _VARINT:
        return at, _varint(data, at, end)[1]
    length = _FIXED_BYTES.get(wire_type, -1)
    if wire_type == _LENGTH_DELIMITED:
        length, at = _varint(data, at, end)
    return at, at + length if at >= 0 and 0 <= length <= end - at else -1


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Returns the number at `at` and its end; the end is -1 if there is no number."""
    value = 0
    for index, byte in enumerate(data[at : min(at + 10, end)]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    return 0, -1
