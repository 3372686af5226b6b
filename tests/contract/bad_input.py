"""Table of every known way to send a request that must be rejected.

A request that both transports can express is a `Query`, and is sent over both. One that only one of them can express
is in a table of its own, as bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import orjson

from electra_serve.presets.catalog import DEMO_ID
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_floats
from electra_serve.tensors import Output, Truncation
from tests.contract import oip
from tests.contract.query import Query, Wire
from tests.contract.stack import MAX_LENGTH, MAX_REQUEST_BYTES, MAX_SEQUENCES, MAX_TEXT_CHARACTERS, TINY, VOCAB_SIZE

MARK: Final = "hunter2"
"""Stands in what is sent wherever a string can, and must not come back."""

MALFORMED: Final = "malformed_request"
MEDIA_TYPE: Final = "unsupported_media_type"
INVALID: Final = "invalid_input"
TOO_LARGE: Final = "payload_too_large"
NOT_FOUND: Final = "model_not_found"


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and its rejection.

    Attributes:
        name: Its fault.
        request: The request, or its bytes.
        code: Code of the error.
        field: Field at fault.
    """

    name: str
    request: Query | Wire
    code: str
    field: str | None = None


def _ids(*rows: list[int]) -> Query:
    return Query(token_ids=rows)


ANYWHERE: Final = (
    Case("no rows", Query(token_ids=[]), INVALID, "token_ids"),
    Case("an empty row", _ids([1], []), INVALID, "token_ids[1]"),
    Case("no texts", Query(text=[], model=DEMO_ID), INVALID, "text"),
    Case("fewer rows of segments", Query(token_ids=[[1], [2]], segment_ids=[[0]]), INVALID, "segment_ids"),
    Case("more rows of segments", Query(token_ids=[[1]], segment_ids=[[0], [0]]), INVALID, "segment_ids"),
    Case("fewer rows of mask", Query(token_ids=[[1], [2]], padding_mask=[[1]]), INVALID, "padding_mask"),
    Case("more rows of mask", Query(token_ids=[[1]], padding_mask=[[1], [1]]), INVALID, "padding_mask"),
    Case("a shorter row of segments", Query(token_ids=[[1, 2]], segment_ids=[[0]]), INVALID, "segment_ids[0]"),
    Case("a longer row of segments", Query(token_ids=[[1]], segment_ids=[[0, 0]]), INVALID, "segment_ids[0]"),
    Case("a shorter row of mask", Query(token_ids=[[1], [1, 2]], padding_mask=[[1], [1]]), INVALID, "padding_mask[1]"),
    Case("a longer row of mask", Query(token_ids=[[1]], padding_mask=[[1, 1]]), INVALID, "padding_mask[0]"),
    Case("an id out of vocabulary", _ids([1], [2, VOCAB_SIZE]), INVALID, "token_ids[1][1]"),
    Case("an id beyond 32 bits", _ids([2**32 + 1]), INVALID, "token_ids[0][0]"),
    Case("the largest id of 64 bits", _ids([2**63 - 1]), INVALID, "token_ids[0][0]"),
    Case("a negative id", _ids([1, -1]), INVALID, "token_ids[0][1]"),
    Case("the lowest id of 64 bits", _ids([-(2**63)]), INVALID, "token_ids[0][0]"),
    Case("a segment too high", Query(token_ids=[[1, 2]], segment_ids=[[0, 2]]), INVALID, "segment_ids[0][1]"),
    Case("a negative segment", Query(token_ids=[[1]], segment_ids=[[-1]]), INVALID, "segment_ids[0][0]"),
    Case("a mask of 2", Query(token_ids=[[1, 2]], padding_mask=[[1, 2]]), INVALID, "padding_mask[0][1]"),
    Case("a mask of −1", Query(token_ids=[[1]], padding_mask=[[-1]]), INVALID, "padding_mask[0][0]"),
    Case("a mask of zeros", Query(token_ids=[[1], [1]], padding_mask=[[1], [0]]), INVALID, "padding_mask[1]"),
    Case("a row too long", _ids([1] * (MAX_LENGTH + 1)), INVALID, "token_ids[0]"),
    Case("a text too long in ids", Query(text=["a", "a " * 600], model=DEMO_ID), INVALID, "text[1]"),
    Case("too many rows", _ids(*[[1]] * (MAX_SEQUENCES + 1)), TOO_LARGE, "token_ids"),
    Case("too many texts", Query(text=["a"] * (MAX_SEQUENCES + 1), model=DEMO_ID), TOO_LARGE, "text"),
    Case("faults in every row", _ids(*[[-1] * MAX_LENGTH] * MAX_SEQUENCES), INVALID, "token_ids[0][0]"),
    Case("an unknown model", _ids([1]).of(MARK), NOT_FOUND, "model"),
    Case("no model where several are", _ids([1]).of(None), NOT_FOUND, "model"),
    Case(
        "a text of too many characters",
        Query(text=["a", MARK * MAX_TEXT_CHARACTERS], model=DEMO_ID),
        INVALID,
        "text[1]",
    ),
    Case("ids without a second text", Query(token_ids=[[1]], truncation=Truncation.ONLY_SECOND), INVALID, "truncation"),
    Case(
        "a text without a second",
        Query(text=["a", "a " * 600], model=DEMO_ID, truncation=Truncation.ONLY_SECOND),
        INVALID,
        "text[1]",
    ),
    Case(
        "a truncation that forbids what truncate allows",
        Query(token_ids=[[1]], truncate=True, truncation=Truncation.NONE),
        MALFORMED,
        "truncation",
    ),
    Case("logits of a model without a head", Query(token_ids=[[1]], outputs=[Output.LOGITS]), INVALID, "outputs"),
    Case(
        "token logits of a model without a head",
        Query(token_ids=[[1]], outputs=[Output.MEAN, Output.TOKEN_LOGITS]),
        INVALID,
        "outputs",
    ),
    Case("text to a model without tokenizer", Query(text=[MARK]), INVALID, "text"),
    Case(
        "text to a model without tokenizer, truncated",
        Query(text=[MARK], truncate=True, outputs=[Output.MEAN]),
        INVALID,
        "text",
    ),
)


OIP_ANYWHERE: Final = tuple(
    replace(case, field=oip.FIELDS.get(case.name, case.field))
    for case in ANYWHERE
    if isinstance(case.request, Query) and oip.expressible(case.request)
)


def anywhere(transport: str) -> tuple[Case, ...]:
    """Cases of `ANYWHERE`, as a transport rejects them."""
    return OIP_ANYWHERE if transport.startswith("oip") else ANYWHERE


def _json(**fields: object) -> Wire:
    return Wire(orjson.dumps({"model": TINY, **fields}))


def _body(text: bytes) -> Wire:
    return Wire(b'{"model":"tiny","token_ids":[[1,' + text + b"]]}")


OVER_REST: Final = (
    Case("an id of 1.5", _body(b"1.5"), INVALID, "token_ids[0]"),
    Case("an id of 1.0", _body(b"1.0"), INVALID, "token_ids[0]"),
    Case("an id in quotes", _body(b'"7"'), INVALID, "token_ids[0]"),
    Case("an id that is a word", _body(b'"hunter2"'), INVALID, "token_ids[0]"),
    Case("an id of true", _body(b"true"), INVALID, "token_ids[0]"),
    Case("an id of 2**63", _body(str(2**63).encode()), INVALID, "token_ids[0]"),
    Case("an id of 2**70", _body(str(2**70).encode()), INVALID, "token_ids[0]"),
    Case("an id of 1e2", _body(b"1e2"), INVALID, "token_ids[0]"),
    Case("an id of null", _body(b"null"), INVALID, "token_ids[0]"),
    Case("an id that is a list", _body(b"[1]"), INVALID, "token_ids[0]"),
    Case("an id of NaN", _body(b"NaN"), MALFORMED),
    Case("an id of Infinity", _body(b"-Infinity"), MALFORMED),
    Case("a segment of 0.5", _json(token_ids=[[1]], segment_ids=[[0.5]]), INVALID, "segment_ids[0]"),
    Case("a mask of true", _json(token_ids=[[1]], padding_mask=[[True]]), INVALID, "padding_mask[0]"),
    Case("a row that is no list", _json(token_ids=[[1], 2]), MALFORMED, "token_ids[1]"),
    Case("ids that are no list", _json(token_ids=MARK), MALFORMED, "token_ids"),
    Case("a text that is a number", _json(text=7), MALFORMED, "text"),
    Case("a pair of three", _json(text=[[MARK, MARK, MARK]]), MALFORMED, "text[0]"),
    Case("ids and text", _json(token_ids=[[1]], text=[MARK]), MALFORMED),
    Case("text with segments", _json(text=[MARK], segment_ids=[[0]]), MALFORMED),
    Case("no outputs", _json(token_ids=[[1]], outputs=[]), INVALID, "outputs"),
    Case("an unknown output", _json(token_ids=[[1]], outputs=["mean_output", MARK]), INVALID, "outputs"),
    Case("an output that is no string", _json(token_ids=[[1]], outputs=[{}]), MALFORMED, "outputs"),
    Case("an unknown format", _json(token_ids=[[1]], encoding_format=MARK), INVALID, "encoding_format"),
    Case("truncate in quotes", _json(token_ids=[[1]], truncate="true"), MALFORMED, "truncate"),
    Case("an unknown truncation", _json(token_ids=[[1]], truncation=MARK), INVALID, "truncation"),
    Case("a truncation that is a number", _json(token_ids=[[1]], truncation=7), MALFORMED, "truncation"),
    Case("a model that is a number", _json(token_ids=[[1]], model=7), MALFORMED, "model"),
    Case("an unknown field", _json(token_ids=[[1]], hunter2=MARK), MALFORMED),
    Case("a field in the wrong case", _json(token_ids=[[1]], Outputs=["cls_output"]), MALFORMED),
    Case("a list for a body", Wire(b"[[1]]"), MALFORMED),
    Case("no body", Wire(b""), MALFORMED),
    Case("no ids and no text", _json(), MALFORMED),
    Case("null for ids and text", _json(token_ids=None, text=None), MALFORMED),
    Case("broken JSON", Wire(b'{"model": "hunter2", "token_ids": [[1'), MALFORMED),
    Case("two bodies", Wire(b'{"token_ids":[[1]]} {}'), MALFORMED),
    Case("deep JSON", Wire(b'{"token_ids":' + b"[" * 5000 + b"]" * 5000 + b"}"), MALFORMED),
    Case("deep JSON that never ends", Wire(b"[" * 16_000), MALFORMED),
    Case("bad UTF-8", Wire(b'{"model":"tiny","text":"hunter2 \xff"}'), MALFORMED),
    Case("a surrogate in UTF-8", Wire(b'{"model":"tiny","text":"hunter2 \xed\xa0\x80"}'), MALFORMED),
    Case("a form", Wire(b"token_ids=hunter2", "application/x-www-form-urlencoded"), MEDIA_TYPE, "content-type"),
    Case("JSON that says it is text", Wire(b'{"token_ids":[[1]]}', "text/plain"), MEDIA_TYPE, "content-type"),
    Case("the largest body, blank", Wire(b" " * MAX_REQUEST_BYTES), MALFORMED),
    Case("a body too large", Wire(b" " * (MAX_REQUEST_BYTES + 1)), TOO_LARGE),
    Case("a bodyful of bad ids", _json(token_ids=[["7"] * 1900] * 2), INVALID, "token_ids[0]"),
)


def _oip(*inputs: dict[str, object], **members: object) -> Wire:
    return Wire(orjson.dumps({"inputs": inputs, **members}))


def _tokens(data: object, *shape: int, **members: object) -> dict[str, object]:
    return {"name": "input_ids", "datatype": "INT64", "shape": shape, "data": data, **members}


def _odd(text: bytes) -> Wire:
    return Wire(b'{"inputs":[{"name":"input_ids","datatype":"INT64","shape":[1,2],"data":[[1,' + text + b"]]}]}")


OVER_OIP: Final = (
    Case("an id of 1.5", _odd(b"1.5"), INVALID, "input_ids[0]"),
    Case("an id in quotes", _odd(b'"7"'), INVALID, "input_ids[0]"),
    Case("an id that is a word", _odd(b'"hunter2"'), INVALID, "input_ids[0]"),
    Case("an id of true", _odd(b"true"), INVALID, "input_ids[0]"),
    Case("an id of 2**63", _odd(str(2**63).encode()), INVALID, "input_ids[0]"),
    Case("an id of 2**70", _odd(str(2**70).encode()), INVALID, "input_ids[0]"),
    Case("an id of null", _odd(b"null"), INVALID, "input_ids[0]"),
    Case("an id that is a list", _odd(b"[1]"), INVALID, "input_ids[0]"),
    Case("an id that is a deep list", _odd(b"[[1]]"), INVALID, "input_ids[0]"),
    Case("an id of NaN", _odd(b"NaN"), MALFORMED),
    Case("an id out of vocabulary by another name", _odd(b"100"), INVALID, "input_ids[0][1]"),
    Case("fewer elements than the shape", _oip(_tokens([1, 2], 1, 3)), INVALID, "input_ids"),
    Case("rows of another length than the shape", _oip(_tokens([[1], [1, 2, 3]], 2, 2)), INVALID, "input_ids"),
    Case("no elements", _oip(_tokens(None, 1, 1)), MALFORMED, "input_ids"),
    Case("elements that are no list", _oip(_tokens(MARK, 1, 1)), MALFORMED, "input_ids"),
    Case("three dimensions", _oip(_tokens([1], 1, 1, 1)), INVALID, "input_ids"),
    Case("dimensions that overflow", _oip(_tokens([1], 4, 2**62)), INVALID, "input_ids"),
    Case("a negative dimension", _oip(_tokens([1], 1, -1)), INVALID, "input_ids"),
    Case("a shape that is a word", _oip(_tokens([1]) | {"shape": MARK}), MALFORMED, "inputs[0].shape"),
    Case("an unknown datatype", _oip(_tokens([1], 1) | {"datatype": MARK}), INVALID, "input_ids"),
    Case("floats", _oip(_tokens([1], 1) | {"datatype": "FP32"}), INVALID, "input_ids"),
    Case("an unknown input", _oip(_tokens([1], 1) | {"name": MARK}), INVALID, "inputs"),
    Case("an input twice", _oip(_tokens([1], 1), _tokens([1], 1) | {"name": "token_ids"}), INVALID, "token_ids"),
    Case("no inputs", _oip(), INVALID, "inputs"),
    Case("inputs that are no list", Wire(b'{"inputs":"hunter2"}'), MALFORMED, "inputs"),
    Case("a text that is a number", _oip({**_tokens([7], 1), "name": "text", "datatype": "BYTES"}), INVALID, "text"),
    Case("an unknown output", _oip(_tokens([1], 1), outputs=[{"name": MARK}]), INVALID, "outputs"),
    Case("an output that is no object", _oip(_tokens([1], 1), outputs=[MARK]), MALFORMED, "outputs"),
    Case(
        "shared memory",
        _oip(_tokens([1], 1, parameters={"shared_memory_region": MARK})),
        INVALID,
        "input_ids",
    ),
    Case("a negative timeout", _oip(_tokens([1], 1), parameters={"timeout": -1}), MALFORMED, "timeout"),
    Case("truncate in quotes", _oip(_tokens([1], 1), parameters={"truncate": MARK}), MALFORMED, "truncate"),
    Case("an id that is a number", _oip(_tokens([1], 1), id=7), MALFORMED, "id"),
    Case("bytes that are missing", _oip(_tokens(None, 1, parameters={"binary_data_size": 8})), MALFORMED, "input_ids"),
    Case("a list for a body", Wire(b"[[1]]"), MALFORMED),
    Case("no body", Wire(b""), MALFORMED),
    Case("broken JSON", Wire(b'{"id": "hunter2", "inputs": [{'), MALFORMED),
    Case("deep JSON", Wire(b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}"), MALFORMED),
    Case("bad UTF-8", Wire(b'{"id":"hunter2 \xff","inputs":[]}'), MALFORMED),
    Case("a form", Wire(b"inputs=hunter2", "application/x-www-form-urlencoded"), MEDIA_TYPE, "content-type"),
    Case("the largest body, blank", Wire(b" " * MAX_REQUEST_BYTES), MALFORMED),
    Case("a body too large", Wire(b" " * (MAX_REQUEST_BYTES + 1)), TOO_LARGE),
)

ENVELOPE_BYTES: Final = 16
"""More than a stream adds to a request."""
TOKENS_FIELD: Final = b"\x1a"
"""Tag of `EncodeRequest.tokens`."""
TEXT_FIELD: Final = b"\x22"
"""Tag of `EncodeRequest.text`."""
UNKNOWN_FIELD: Final = b"\xfa\x01\x07hunter2"
"""Field 31 of any message, which none has."""


def _tensor(dtype: pb.DataType.ValueType, shape: list[int], data: bytes) -> pb.EncodeRequest:
    return pb.EncodeRequest(
        model=TINY, tokens=pb.TokenInput(token_ids=[pb.Tensor(dtype=dtype, shape=shape, data=data)])
    )


def _message(request: pb.EncodeRequest) -> Wire:
    return Wire(request.SerializeToString())


def _int32(shape: list[int], size: int) -> Wire:
    return _message(_tensor(pb.DATA_TYPE_INT32, shape, bytes(size)))


def _outputs(*values: int) -> Wire:
    request = _tensor(pb.DATA_TYPE_INT32, [1], bytes(4))
    request.outputs.extend(values)  # type: ignore[arg-type]  # values of no output are the point
    return _message(request)


def _truncation(value: int) -> Wire:
    request = _tensor(pb.DATA_TYPE_INT32, [1], bytes(4))
    request.truncation = value  # type: ignore[assignment]  # a value of no truncation is the point
    return _message(request)


def _floats(*values: float) -> Wire:
    tensor = from_floats(np.array(values, np.float32))
    return _message(pb.EncodeRequest(model=TINY, tokens=pb.TokenInput(token_ids=[tensor])))


def _nested(field: bytes, content: bytes) -> Wire:
    return Wire(pb.EncodeRequest(model=TINY).SerializeToString() + field + bytes([len(content)]) + content)


def _texts(*texts: bytes) -> Wire:
    messages = (b"\x0a" + bytes([len(text)]) + text for text in texts)
    return _nested(TEXT_FIELD, b"".join(b"\x0a" + bytes([len(message)]) + message for message in messages))


OVER_GRPC: Final = (
    Case("floats for ids", _floats(1.0, 2.0), INVALID, "token_ids[0]"),
    Case("NaN for an id", _floats(np.nan), INVALID, "token_ids[0]"),
    Case("no type", _message(_tensor(pb.DATA_TYPE_UNSPECIFIED, [1], bytes(4))), INVALID, "token_ids[0]"),
    Case("an unknown type", _message(_tensor(99, [1], bytes(4))), INVALID, "token_ids[0]"),  # type: ignore[arg-type]
    Case("int64 bytes for int32", _int32([2], 16), INVALID, "token_ids[0]"),
    Case("bytes too few", _int32([3], 8), INVALID, "token_ids[0]"),
    Case("bytes too many", _int32([1], 8), INVALID, "token_ids[0]"),
    Case("half an id", _int32([1], 3), INVALID, "token_ids[0]"),
    Case("no bytes", _int32([1], 0), INVALID, "token_ids[0]"),
    Case("a negative dimension", _int32([-1], 4), INVALID, "token_ids[0]"),
    Case("two negative dimensions", _int32([-1, -1], 4), INVALID, "token_ids[0]"),
    Case("a dimension of 0", _int32([0, 5], 0), INVALID, "token_ids[0]"),
    Case("dimensions that overflow", _int32([2**62, 4], 0), INVALID, "token_ids[0]"),
    Case("dimensions that overflow to 4 bytes", _int32([2**63 - 1, 2**63 - 1], 4), INVALID, "token_ids[0]"),
    Case("no dimensions", _int32([], 4), INVALID, "token_ids[0]"),
    Case("three dimensions", _int32([1, 1, 1], 4), INVALID, "token_ids[0]"),
    Case("a thousand dimensions", _int32([1] * 1000, 4), INVALID, "token_ids[0]"),
    Case(
        "too many rows in one tensor", _int32([MAX_SEQUENCES + 1, 1], 4 * (MAX_SEQUENCES + 1)), TOO_LARGE, "token_ids"
    ),
    Case("an unknown output", _outputs(99), INVALID, "outputs"),
    Case("an unknown truncation", _truncation(99), INVALID, "truncation"),
    Case("an unspecified output", _outputs(pb.OUTPUT_UNSPECIFIED), INVALID, "outputs"),
    Case("an output a thousand times", _outputs(*[pb.OUTPUT_CLS] * 1000), INVALID, "outputs"),
    Case("an unknown field of the ids", _nested(TOKENS_FIELD, UNKNOWN_FIELD), MALFORMED, "tokens"),
    Case("an unknown field of a tensor", _nested(TOKENS_FIELD, b"\x0a\x0a" + UNKNOWN_FIELD), MALFORMED, "token_ids[0]"),
    Case("no message", Wire(b"\xff\xff\xff hunter2"), MALFORMED),
    Case("half a message", Wire(b"\x12\x7fhunter2"), MALFORMED),
    Case("groups without end", Wire(b"\xfb\x01" * 5000), MALFORMED),
    Case("bad UTF-8", Wire(b"\x12\x08hunter2\xff"), MALFORMED, "model"),
    Case("bad UTF-8 in the second text", _texts(b"a", b"hunter2 \xff"), MALFORMED, "text.texts[1].first"),
    Case("a surrogate in UTF-8", Wire(b"\x12\x0ahunter2\xed\xa0\x80"), MALFORMED, "model"),
    Case("the largest message, of zeros", Wire(bytes(MAX_REQUEST_BYTES - ENVELOPE_BYTES)), MALFORMED),
    Case("nothing at all", Wire(b""), MALFORMED, "input"),
    Case("no ids and no text", Query(), MALFORMED, "input"),
)
OVER_UNARY: Final = (Case("an unknown field", Wire(UNKNOWN_FIELD), MALFORMED),)
OVER_STREAM: Final = (Case("an unknown field", Wire(UNKNOWN_FIELD), MALFORMED, "request"),)
