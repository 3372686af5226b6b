"""Requests that would keep the event loop for longest, at default limits: one for each way that was found.

Each is what a client sends over a connection: the bytes of HTTP, or one gRPC message.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import orjson

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers
from electra_serve.settings.schema import GrpcSettings, LimitSettings, RestSettings
from electra_serve.tensors import Output
from tests.oip_requests import Bytes, binary, strings

BODY_BYTES: Final = RestSettings().max_body_bytes
MESSAGE_BYTES: Final = GrpcSettings().max_request_bytes
SEQUENCES: Final = LimitSettings().max_sequences
LENGTH: Final = 512
INLINE: Final = (16_384, 65_536)
"""Largest body and message that is decoded on the event loop."""
GROUPS: Final = b"\xfb\x01\xfc\x01"


@dataclass(frozen=True, slots=True)
class WorstInput:
    """One request.

    Attributes:
        name: What makes it expensive.
        data: What is sent.
        code: The response's status, of HTTP or of gRPC.
    """

    name: str
    data: bytes
    code: str


def rest_inputs(scale: int = 1) -> Iterable[WorstInput]:
    """Requests over HTTP; counts and bodies above what is decoded on the event loop are divided by `scale`."""
    yield from _heads()
    yield from _framings(scale)
    for size in (INLINE[0], BODY_BYTES // scale):
        yield from _bodies(size)
    for count in (32, 64):
        texts = {"text": ["ﷺ" * 16] * count, "outputs": ["mean_output"]}
        yield WorstInput(f"{count} short texts", _post(orjson.dumps(texts)), "200")
    ids = {"token_ids": [[7] * LENGTH] * SEQUENCES, "outputs": ["mean_output"]}
    others = {"segment_ids": [[0] * LENGTH] * SEQUENCES, "padding_mask": [[1, 0] * (LENGTH // 2)] * SEQUENCES}
    yield WorstInput("the most ids", _post(orjson.dumps(ids | others)), "200")
    masked = {"token_ids": [[7] * LENGTH] * 32, "padding_mask": [[1] * 511 + [0]] * 32, "outputs": ["sequence_output"]}
    yield WorstInput("a large response with masked positions", _post(orjson.dumps(masked)), "200")
    yield WorstInput("metrics", _get(b"", b"/metrics"), "200")
    for size in (INLINE[0], BODY_BYTES // scale):
        yield from _tensors_in_json(size)
    yield from _tensors(scale)


def grpc_inputs(scale: int = 1) -> Iterable[WorstInput]:
    """Messages of `Encode`; those above what is decoded on the event loop are divided by `scale`."""
    for size in (4096, 12_400, INLINE[1], MESSAGE_BYTES // scale - 64):
        yield from _messages(size)
        yield from _strings(size)
    for count in (32, 64):
        texts = pb.TextInput(texts=[pb.Text(first="ﷺ" * 16)] * count)
        short = pb.EncodeRequest(text=texts, outputs=[pb.OUTPUT_MEAN])
        yield WorstInput(f"{count} short texts", short.SerializeToString(), "OK")
    tensors = [from_integers(np.full(LENGTH, id_, np.int64)) for id_ in (7, 0, 1)]
    ids, segments, mask = ([tensor] * SEQUENCES for tensor in tensors)
    most = pb.TokenInput(token_ids=ids, segment_ids=segments, padding_mask=mask)
    yield WorstInput("the most tensors", _message(most, Output.MEAN), "OK")
    large = pb.TokenInput(token_ids=[from_integers(np.full((20, LENGTH), 7, np.int32))])
    yield WorstInput("a response of 5 MB", _message(large, Output.SEQUENCE), "OK")


def get_model_inputs(scale: int = 1) -> Iterable[WorstInput]:
    """Messages of `GetModel`."""
    name = _characters(MESSAGE_BYTES // scale - 64)
    yield WorstInput("a long name of a model", _field(b"\x0a", name), "NOT_FOUND")


def health_inputs(scale: int = 1) -> Iterable[WorstInput]:
    """Messages of health's `Check`."""
    size = MESSAGE_BYTES // scale - 64
    yield WorstInput("a long name of a service", _field(b"\x0a", _characters(size)), "RESOURCE_EXHAUSTED")
    yield WorstInput("groups to health", GROUPS * (size // 4), "RESOURCE_EXHAUSTED")
    yield WorstInput("short groups to health", GROUPS * 1024, "OK")


def _heads() -> Iterable[WorstInput]:
    yield WorstInput("6,000 headers", _get(b"a:\r\n" * 6000), "431")
    yield WorstInput("50,000 headers", _get(b"a:\r\n" * 50_000), "431")
    yield WorstInput("a long query", _get(b"", b"/v1/models?" + b"a=%41&" * 5000), "200")
    yield WorstInput("a long cookie", _get(b"cookie: " + b"a;" * 16_000 + b"\r\n", b"/v1/models"), "200")
    yield WorstInput("a long name, escaped", _get(b"", b"/v1/models/" + b"%41" * 10_000), "404")
    yield WorstInput("many versions", _get(b"", b"/v2/models/a" + b"/versions/1" * 2500 + b"/ready/x"), "404")


def _framings(scale: int) -> Iterable[WorstInput]:
    head = b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b'{"token_ids":[[7]],"outputs":["mean_output"]}'
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    yield WorstInput("chunks of one byte", head + b"1\r\n \r\n" * (500_000 // scale) + b"0\r\n\r\n", "400")
    yield WorstInput("200,000 trailers", head + chunk + b"0\r\n" + b"a:\r\n" * (200_000 // scale) + b"\r\n", "431")


def _bodies(size: int) -> Iterable[WorstInput]:
    def filled(before: bytes, piece: bytes, after: bytes = b"") -> bytes:
        return _post(before + piece * ((size - len(before) - len(after)) // len(piece)) + after)

    rows = b'{"token_ids":[[1'
    yield WorstInput(f"ids, {size} bytes", filled(rows, b",1", b"]]}"), "422")
    yield WorstInput(f"ids and one fraction, {size} bytes", filled(rows, b",1", b",1.5]]}"), "422")
    yield WorstInput(f"strings with brackets, {size} bytes", filled(b'{"text":[""', b',"["', b"]}"), "413")
    yield WorstInput(f"brackets, {size} bytes", filled(b"", b"["), "400")
    yield WorstInput(f"empty lists, {size} bytes", filled(b"[[]", b",[]", b"]"), "413")
    yield WorstInput(f"halves of pairs, {size} bytes", filled(b'{"model":"', rb"\ud800", b'"}'), "400")
    yield WorstInput(f"backslashes, {size} bytes", filled(b"[]" * 800 + b'"', b"\\"), "413")
    yield WorstInput(f"a long name, {size} bytes", filled(b'{"token_ids":[[1]],"model":"', b"m", b'"}'), "404")


def _tensors_in_json(size: int) -> Iterable[WorstInput]:
    """Requests of the Open Inference Protocol that are expensive as JSON."""

    def filled(before: bytes, piece: bytes, after: bytes = b"") -> bytes:
        return _infer(before + piece * ((size - len(before) - len(after)) // len(piece)) + after)

    ids = b'{"inputs":[{"name":"token_ids","datatype":"INT64","shape":[1,9],"data":[1'
    yield WorstInput(f"elements, {size} bytes", filled(ids, b",1", b"]}]}"), "400")
    yield WorstInput(f"elements and one fraction, {size} bytes", filled(ids, b",1", b",1.5]}]}"), "400")
    yield WorstInput(
        f"a long shape, {size} bytes", filled(b'{"inputs":[{"name":"token_ids","shape":[1', b",1", b"]}]}"), "400"
    )
    yield WorstInput(f"inputs, {size} bytes", filled(b'{"inputs":[{}', b",{}", b"]}"), "400")
    yield WorstInput(f"numbers as inputs, {size} bytes", filled(b'{"inputs":[7', b",7", b"]}"), "400")
    yield WorstInput(f"lists in lists, {size} bytes", filled(b'{"inputs":[{"data":[[]', b",[]", b"]}]}"), "413")
    yield WorstInput(f"a long id, {size} bytes", filled(b'{"id":"', b"a", b'","inputs":[]}'), "400")
    yield WorstInput(f"a long parameter, {size} bytes", filled(b'{"parameters":{"', b"a", b'":1},"inputs":[]}'), "400")


def _tensors(scale: int) -> Iterable[WorstInput]:
    """Requests of the Open Inference Protocol with bytes, and compressed ones."""
    given = [np.full((SEQUENCES, LENGTH), value) for value in (7, 0, 1)]
    named = zip(("token_ids", "segment_ids", "padding_mask"), given, strict=True)
    outputs = [{"name": "mean_output"}]
    body, headers = binary(*(Bytes.of(name, array) for name, array in named), outputs=outputs)
    yield WorstInput("the most elements as bytes", _infer(body, headers), "200")
    for level in (1, 9):
        yield WorstInput(
            f"the most elements at level {level}",
            _infer(zlib.compress(body, level), headers | {"content-encoding": "deflate"}),
            "200",
        )
    ids = np.full((32, LENGTH), 7)
    for outputs_as_bytes in (False, True):
        members = {"outputs": [{"name": "sequence_output"}], "parameters": {"binary_data_output": outputs_as_bytes}}
        body, headers = binary(Bytes.of("token_ids", ids), **members)
        for coding in ("", "gzip"):
            yield WorstInput(
                f"a large response, as bytes: {outputs_as_bytes}, {coding or 'plain'}",
                _infer(body, headers | {"accept-encoding": coding}),
                "200",
            )
    for kind in (b" " * (64 * 2**20 // scale), b"[" * (BODY_BYTES - 64)):
        bomb = zlib.compress(kind, 9)
        yield WorstInput(
            f"{len(bomb)} bytes of {len(kind)}",
            _infer(bomb, {"content-encoding": "deflate"}),
            "413" if kind[:1] == b" " else "400",
        )
    small = zlib.compress(b" " * 65_536, 9) * 200  # more bytes after the end
    yield WorstInput("streams in a row", _infer(small, {"content-encoding": "deflate"}), "400")
    texts = Bytes("text", strings(*["ﷺ".encode() * 8] * 64), [64], "BYTES")
    body, headers = binary(texts, outputs=outputs)
    yield WorstInput("64 short texts as bytes", _infer(body, headers), "200")
    empty = Bytes("text", b"\0" * 2 * (BODY_BYTES // scale), [SEQUENCES], "BYTES")
    body, headers = binary(empty)
    yield WorstInput("many empty texts as bytes", _infer(body, headers), "400")


def _messages(size: int) -> Iterable[WorstInput]:
    names = "INVALID_ARGUMENT" if size < 12_416 else "RESOURCE_EXHAUSTED"  # 6,208 fields
    yield WorstInput(f"groups, {size} bytes", GROUPS * (size // 4), "INVALID_ARGUMENT")
    yield WorstInput(f"groups in a tensor, {size} bytes", _nested(GROUPS * (size // 4)), "INVALID_ARGUMENT")
    yield WorstInput(f"zeros, {size} bytes", bytes(size), "INVALID_ARGUMENT")
    yield WorstInput(f"empty tensors, {size} bytes", _field(b"\x1a", b"\x0a\x00" * (size // 2)), "RESOURCE_EXHAUSTED")
    yield WorstInput(f"empty names, {size} bytes", b"\x12\x00" * (size // 2), names)
    yield WorstInput(f"a name that is not UTF-8, {size} bytes", _field(b"\x12", b"\xff" * size), "INVALID_ARGUMENT")


def _strings(size: int) -> Iterable[WorstInput]:
    """Valid requests for the rest, with a string of two-byte and three-byte characters."""
    text, tokens = _characters(size), pb.EncodeRequest(tokens=pb.TokenInput(token_ids=[from_integers(np.full(4, 7))]))
    rest = tokens.SerializeToString()
    yield WorstInput(f"a long name, {size} bytes", _field(b"\x12", text) + rest, "NOT_FOUND")
    yield WorstInput(f"a long request id, {size} bytes", _field(b"\x0a", text) + rest, "OK")
    if size > 65_536:  # shorter ones are tokenized, which is no step of the event loop
        yield WorstInput(
            f"a long text, {size} bytes", _field(b"\x22", _field(b"\x0a", _field(b"\x0a", text))), "INVALID_ARGUMENT"
        )


def _characters(size: int) -> bytes:
    return "é€".encode() * (size // 5)


def _nested(content: bytes) -> bytes:
    return _field(b"\x1a", _field(b"\x0a", content))


def _field(tag: bytes, content: bytes) -> bytes:
    length, digits = len(content), bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    return tag + bytes(digits) + bytes([length]) + content


def _message(tokens: pb.TokenInput, output: Output) -> bytes:
    value = {Output.MEAN: pb.OUTPUT_MEAN, Output.SEQUENCE: pb.OUTPUT_SEQUENCE}[output]
    return pb.EncodeRequest(tokens=tokens, outputs=[value]).SerializeToString()


def _get(headers: bytes, path: bytes = b"/livez") -> bytes:
    return b"GET %s HTTP/1.1\r\nhost: x\r\n%s\r\n" % (path, headers)


def _infer(body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    head = b"POST /v2/models/electra_demo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%s\r\n"
    return head % (len(body), lines) + body


def _post(body: bytes) -> bytes:
    return b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
