"""The Open Inference Protocol over gRPC: how it writes a `Query`, and its differences from the native API.

- Sequences are the rows of a rectangle. Shorter ones are padded, and a mask says so.
- Texts are all pairs, or none is.
- The only rule for sequences that are too long is `truncate`.
- A response says neither which sequences were cut nor where a sequence of the rectangle ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from electra_serve.tensors import DEFAULT_OUTPUTS, Float32Array, Output
from tests.contract import bad_input, oip, read
from tests.contract.bad_input import INVALID, MALFORMED, MARK, NOT_FOUND, TOO_LARGE, Case
from tests.contract.outcome import Outcome, Success
from tests.contract.query import Query, Rows, Wire
from tests.contract.stack import MAX_LENGTH, MAX_REQUEST_BYTES, MAX_SEQUENCES, TINY

SERVICE: Final = "/inference.GRPCInferenceService"
TRANSPORT: Final = "oip_grpc"
COUNTS: Final = "token_counts"

InputTensor = pb.ModelInferRequest.InferInputTensor


def expressible(request: Query | Wire) -> bool:
    """Returns True for a query that the protocol has words for."""
    return isinstance(request, Query) and request.truncation is None


ANYWHERE: Final = tuple(
    replace(case, field=oip.FIELDS.get(case.name, case.field))
    for case in bad_input.ANYWHERE
    if expressible(case.request)
)


def to_raw(query: Query) -> Wire:
    """The request with raw contents."""
    return Wire(message(query, raw=True).SerializeToString())


def to_typed(query: Query) -> Wire:
    """The request with typed contents."""
    return Wire(message(query, raw=False).SerializeToString())


def message(query: Query, *, raw: bool) -> pb.ModelInferRequest:
    """The request as a message."""
    names = [*(DEFAULT_OUTPUTS if query.outputs is None else query.outputs), COUNTS]
    request = pb.ModelInferRequest(
        model_name=query.model or "",
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names],
    )
    if query.truncate:
        request.parameters["truncate"].bool_param = True
    for name, rows in _rectangles(query).items():
        _add_integers(request, name, rows, raw=raw)
    if query.text is not None:
        _add_texts(request, query.text, raw=raw)
    return request


def _rectangles(query: Query) -> Mapping[str, Rows]:
    if query.token_ids is None:
        return {}
    mask = query.padding_mask
    if mask is None and len({len(row) for row in query.token_ids}) > 1:
        mask = [[1] * len(row) for row in query.token_ids]
    given = {"token_ids": query.token_ids, "segment_ids": query.segment_ids, "padding_mask": mask}
    return {name: _padded(rows) for name, rows in given.items() if rows is not None}


def _padded(rows: Rows) -> Rows:
    longest = max(map(len, rows), default=0)
    return [[*row, *[0] * (longest - len(row))] for row in rows]


def _add_integers(request: pb.ModelInferRequest, name: str, rows: Rows, *, raw: bool) -> None:
    shape = (len(rows), len(rows[0]) if rows else 0)
    tensor = request.inputs.add(name=name, datatype="INT64", shape=shape)
    numbers = np.array(rows, "<i8").reshape(shape)
    if raw:
        request.raw_input_contents.append(numbers.tobytes())
    else:
        tensor.contents.int64_contents.extend(numbers.ravel().tolist())


def _add_texts(request: pb.ModelInferRequest, texts: Sequence[str | tuple[str, str]], *, raw: bool) -> None:
    pairs = [text for text in texts if isinstance(text, tuple)]
    assert len(pairs) in {0, len(texts)}, "texts are all pairs, or none is"
    flat = [part.encode() for text in texts for part in ((text,) if isinstance(text, str) else text)]
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=(len(texts), 2) if pairs else (len(texts),))
    if raw:
        request.raw_input_contents.append(b"".join(len(part).to_bytes(4, "little") + part for part in flat))
    else:
        tensor.contents.bytes_contents.extend(flat)


def response(data: bytes, *, raw: bool) -> Success:
    """Reads a `ModelInferResponse`; fails for one whose contents are of the other kind than its request's."""
    received = pb.ModelInferResponse.FromString(data)
    assert received.model_version == "1"
    assert len(received.raw_output_contents) == (len(received.outputs) if raw else 0)
    arrays = {
        tensor.name: _array(tensor, received.raw_output_contents[index] if raw else None)
        for index, tensor in enumerate(received.outputs)
    }
    counts = arrays.pop(COUNTS)
    return Success(
        model=received.model_name,
        outputs={Output(name): list(array) for name, array in arrays.items()},
        sequences=len(counts),
        tokens=int(counts.sum()),
        truncated=None,
        padded=True,
    )


def _array(tensor: pb.ModelInferResponse.InferOutputTensor, data: bytes | None) -> Float32Array:
    dtype = {"FP32": "<f4", "INT32": "<i4"}[tensor.datatype]
    if data is not None:
        assert not tensor.HasField("contents")
        return np.frombuffer(data, dtype).reshape(tensor.shape)
    field = {"FP32": "fp32_contents", "INT32": "int_contents"}[tensor.datatype]
    assert [descriptor.name for descriptor, _ in tensor.contents.ListFields()] == [field]
    return np.array(getattr(tensor.contents, field), dtype).reshape(tensor.shape)


def stream_response(data: bytes) -> Outcome:
    """Reads a `ModelStreamInferResponse`; the parameters of an error are the trailing metadata of a unary call."""
    received = pb.ModelStreamInferResponse.FromString(data)
    if not received.error_message:
        return response(received.infer_response.SerializeToString(), raw=True)
    assert not received.infer_response.outputs
    metadata = {name: value.string_param for name, value in received.infer_response.parameters.items()}
    return replace(read.rejection(received.error_message, metadata, None), raw=data)


def _infer(*tensors: InputTensor, raw: Sequence[bytes] = (), **fields: Any) -> Wire:
    request = pb.ModelInferRequest(model_name=TINY, inputs=tensors, raw_input_contents=raw, **fields)
    return Wire(request.SerializeToString())


def _ids(shape: Sequence[int] = (1, 1), datatype: str = "INT64", name: str = "token_ids", **fields: Any) -> InputTensor:
    return InputTensor(name=name, datatype=datatype, shape=shape, **fields)


def _with(name: str, **value: Any) -> Wire:
    return _infer(_ids(), raw=[bytes(8)], parameters={name: pb.InferParameter(**value)})


def _output(name: str, **parameters: pb.InferParameter) -> pb.ModelInferRequest.InferRequestedOutputTensor:
    return pb.ModelInferRequest.InferRequestedOutputTensor(name=name, parameters=parameters)


def _contents(**fields: Any) -> pb.InferTensorContents:
    return pb.InferTensorContents(**fields)


def _text(shape: Sequence[int], **fields: Any) -> InputTensor:
    return InputTensor(name="text", datatype="BYTES", shape=shape, **fields)


def _texts(shape: Sequence[int], data: bytes) -> Wire:
    return _infer(_text(shape), raw=[data])


_COUNT: Final = pb.InferParameter(int64_param=1)
_REGION: Final = {"shared_memory_region": pb.InferParameter(string_param=MARK)}

WIRES: Final = (
    Case("no inputs", _infer(), INVALID, "inputs"),
    Case("an unknown input", _infer(_ids(name=MARK), raw=[bytes(8)]), INVALID, "inputs"),
    Case("an unknown datatype", _infer(_ids(datatype=MARK), raw=[bytes(8)]), INVALID, "token_ids"),
    Case("no datatype", _infer(_ids(datatype=""), raw=[bytes(8)]), INVALID, "token_ids"),
    Case("floats for ids", _infer(_ids(datatype="FP32"), raw=[bytes(4)]), INVALID, "token_ids"),
    Case("texts for ids", _infer(_ids(datatype="BYTES"), raw=[bytes(4)]), INVALID, "token_ids"),
    Case("numbers for texts", _infer(_ids(name="text"), raw=[bytes(8)]), INVALID, "text"),
    Case("bytes too few under an alias", _infer(_ids((1, 2), name="input_ids"), raw=[bytes(8)]), INVALID, "input_ids"),
    Case(
        "an id under an alias out of vocabulary",
        _infer(_ids((2, 1), "UINT8", "input_ids"), raw=[b"\x01\xff"]),
        INVALID,
        "input_ids[1][0]",
    ),
    Case(
        "a mask under an alias of 2",
        _infer(_ids((1, 1)), _ids((1, 1), "INT8", "attention_mask"), raw=[bytes(8), b"\x02"]),
        INVALID,
        "attention_mask[0][0]",
    ),
    Case("an id of 2**64 − 1", _infer(_ids((1,), "UINT64"), raw=[b"\xff" * 8]), INVALID, "token_ids[0][0]"),
    Case(
        "a typed id of 2**64 − 1",
        _infer(_ids((1,), "UINT64", contents=_contents(uint64_contents=[2**64 - 1]))),
        INVALID,
        "token_ids[0][0]",
    ),
    Case("ids twice", _infer(_ids(), _ids(name="input_ids"), raw=[bytes(8)] * 2), INVALID, "input_ids"),
    Case("eight inputs", _infer(*[_ids()] * 8, raw=[bytes(8)] * 8), INVALID, "inputs"),
    Case("a mask alone", _infer(_ids(name="padding_mask"), raw=[bytes(8)]), INVALID, "inputs"),
    Case(
        "ids and text",
        _infer(_ids(), _text((1,)), raw=[bytes(8), bytes(4)]),
        INVALID,
        "inputs",
    ),
    Case("bytes too few", _infer(_ids((1, 2)), raw=[bytes(8)]), INVALID, "token_ids"),
    Case("bytes too many", _infer(_ids(), raw=[bytes(16)]), INVALID, "token_ids"),
    Case("half an id", _infer(_ids(), raw=[bytes(7)]), INVALID, "token_ids"),
    Case("elements too few", _infer(_ids((1, 2), contents=_contents(int64_contents=[1]))), INVALID, "token_ids"),
    Case("elements too many", _infer(_ids(contents=_contents(int64_contents=[1, 2]))), INVALID, "token_ids"),
    Case("no contents", _infer(_ids()), INVALID, "token_ids"),
    Case("contents of another type", _infer(_ids(contents=_contents(int_contents=[1]))), INVALID, "token_ids"),
    Case(
        "contents of two types",
        _infer(_ids(contents=_contents(int64_contents=[1], int_contents=[1]))),
        INVALID,
        "token_ids",
    ),
    Case(
        "contents raw and typed",
        _infer(_ids(contents=_contents(int64_contents=[1])), raw=[bytes(8)]),
        INVALID,
        "token_ids",
    ),
    Case(
        "an input raw and one typed",
        _infer(_ids(), _ids(name="padding_mask", contents=_contents(int64_contents=[1])), raw=[bytes(8)]),
        INVALID,
        "raw_input_contents",
    ),
    Case("raw contents without an input", _infer(_ids(), raw=[bytes(8)] * 2), INVALID, "raw_input_contents"),
    Case("no dimensions", _infer(_ids(()), raw=[bytes(8)]), INVALID, "token_ids"),
    Case("three dimensions", _infer(_ids((1, 1, 1)), raw=[bytes(8)]), INVALID, "token_ids"),
    Case("a thousand dimensions", _infer(_ids([1] * 1000), raw=[bytes(8)]), INVALID, "inputs"),
    Case("a negative dimension", _infer(_ids((-1, -1)), raw=[bytes(8)]), INVALID, "token_ids"),
    Case("dimensions that overflow", _infer(_ids((1, 2**62)), raw=[b""]), INVALID, "token_ids"),
    Case("dimensions beyond any request", _infer(_ids((2**62, 2**62)), raw=[b""]), TOO_LARGE, "token_ids"),
    Case("rows without ids", _infer(_ids((2, 0)), raw=[b""]), INVALID, "token_ids[0]"),
    Case("too many rows of nothing", _infer(_ids((MAX_SEQUENCES + 1, 0)), raw=[b""]), TOO_LARGE, "token_ids"),
    Case("a row too long", _infer(_ids((1, MAX_LENGTH + 1), "BOOL"), raw=[bytes(9)]), INVALID, "token_ids[0]"),
    Case("a text that is not UTF-8", _texts((1,), b"\x09\0\0\0hunter2 \xff"), INVALID, "text"),
    Case("a text longer than its bytes", _texts((1,), b"\xff\xff\xff\xffhunter2"), INVALID, "text"),
    Case("half the length of a text", _texts((2,), b"\x01\0\0\0a\x07\0"), INVALID, "text"),
    Case("a text too few", _texts((2,), b"\x01\0\0\0a"), INVALID, "text"),
    Case("a text too many", _texts((1,), b"\x01\0\0\0a" * 2), INVALID, "text"),
    Case("triples of texts", _texts((1, 3), bytes(12)), INVALID, "text"),
    Case(
        "a typed text that is not UTF-8",
        _infer(_text((1,), contents=_contents(bytes_contents=[b"hunter2 \xff"]))),
        INVALID,
        "text",
    ),
    Case("an unknown output", _infer(_ids(), raw=[bytes(8)], outputs=[_output(MARK)]), INVALID, "outputs"),
    Case(
        "classification",
        _infer(_ids(), raw=[bytes(8)], outputs=[_output("logits", classification=_COUNT)]),
        INVALID,
        "outputs",
    ),
    Case("shared memory", _infer(_ids(parameters=_REGION), raw=[bytes(8)]), INVALID, "token_ids"),
    Case(
        "shared memory for an output",
        _infer(_ids(), raw=[bytes(8)], outputs=[_output("cls_output", **_REGION)]),
        INVALID,
        "outputs",
    ),
    Case("a priority that is a text", _with("priority", string_param=MARK), MALFORMED, "priority"),
    Case("a priority below 0", _with("priority", int64_param=-1), MALFORMED, "priority"),
    Case("a timeout that is a fraction", _with("timeout", double_param=1.5), MALFORMED, "timeout"),
    Case("a timeout that is true", _with("timeout", bool_param=True), MALFORMED, "timeout"),
    Case("a timeout below 0", _with("timeout", int64_param=-1), MALFORMED, "timeout"),
    Case("truncate that is a number", _with("truncate", int64_param=1), MALFORMED, "truncate"),
    Case("another version", _infer(_ids(), raw=[bytes(8)], model_version="2"), NOT_FOUND, "model_version"),
    Case("no message", Wire(b"\xff\xff\xff hunter2"), MALFORMED),
    Case("half a message", Wire(b"\x0a\x7fhunter2"), MALFORMED),
    Case("groups without end", Wire(b"\xfb\x01" * 5000), MALFORMED),
    Case("bad UTF-8", Wire(b"\x0a\x08hunter2\xff"), MALFORMED, "model_name"),
    Case("the largest message, of zeros", Wire(bytes(MAX_REQUEST_BYTES)), MALFORMED),
    Case("a messageful of empty inputs", Wire(b"\x2a\x00" * (MAX_REQUEST_BYTES // 2)), TOO_LARGE),
    Case("a messageful of empty outputs", Wire(b"\x32\x00" * (MAX_REQUEST_BYTES // 2)), TOO_LARGE),
    Case("a messageful of empty texts", Wire(b"\x3a\x00" * (MAX_REQUEST_BYTES // 2)), TOO_LARGE),
    Case("nothing at all", Wire(b""), NOT_FOUND, "model"),
)
