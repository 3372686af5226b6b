"""Requests of the Open Inference Protocol in each of its forms, and wrong ones made of them."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
import orjson

from electra_serve.presets.catalog import DEMO_ID
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from tests.load.bodies import ODD
from tests.load.mutations import mutated

LENGTH_HEADER: Final = "inference-header-content-length"
PATH: Final = f"/v2/models/{DEMO_ID}/infer"
PATHS: Final = (PATH, PATH, f"/v2/models/{DEMO_ID}/versions/1/infer", f"/v2/models/{DEMO_ID}/versions/2/infer")
COMPRESSIONS: Final[Mapping[str, Callable[[bytes], bytes]]] = {"gzip": gzip.compress, "deflate": zlib.compress}
ODD_LENGTHS: Final = ("", "-1", "0", "1", "abc", "1e3", "+7", "9" * 40, "18446744073709551616")
ODD_NUMBERS: Final = (0, -1, 1, 3, 2**31, 2**62, -(2**63))
ODD_NAMES: Final = (
    "",
    "token_ids",
    "input_ids",
    "segment_ids",
    "text",
    "BYTES",
    "FP32",
    "BF16",
    "UINT64",
    "\x00",
    "é" * 300,
)
PARTS: Final = ("inputs", "outputs", "parameters", "shape", "data", "raw", "contents", "names")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input tensor; `values` are flat."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: Sequence[int] | Sequence[str]

    @property
    def raw(self) -> bytes:
        """Returns the elements as bytes."""
        if self.datatype == "BYTES":
            encoded = (str(value).encode() for value in self.values)
            return b"".join(len(data).to_bytes(4, "little") + data for data in encoded)
        return np.array(self.values, np.dtype(self.datatype.lower() if self.datatype != "BOOL" else "u1")).tobytes()

    @property
    def header(self) -> dict[str, Any]:
        """Returns the description as JSON has it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Infer:
    """A good request."""

    tensors: Sequence[Tensor]
    outputs: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """Returns the request as JSON alone has it."""
        inputs = [{**tensor.header, "data": list(tensor.values)} for tensor in self.tensors]
        return {"id": "a request", "inputs": inputs, **self._rest()}

    @property
    def head(self) -> dict[str, Any]:
        """Returns the JSON that precedes binary tensors."""
        inputs = [{**tensor.header, "parameters": {"binary_data_size": len(tensor.raw)}} for tensor in self.tensors]
        return {"id": "a request", "inputs": inputs, **self._rest()}

    @property
    def raw(self) -> bytes:
        """Returns the bytes of all tensors."""
        return b"".join(tensor.raw for tensor in self.tensors)

    def message(self, *, raw: bool) -> pb.ModelInferRequest:
        """Returns the request as gRPC has it, with raw or typed contents."""
        made = pb.ModelInferRequest(model_name=DEMO_ID, id="a request")
        for tensor in self.tensors:
            added = made.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            if raw:
                made.raw_input_contents.append(tensor.raw)
            elif tensor.datatype == "BYTES":
                added.contents.bytes_contents.extend(str(value).encode() for value in tensor.values)
            else:
                getattr(added.contents, _contents_of(tensor.datatype)).extend(tensor.values)
        for output in self.outputs:
            made.outputs.add(name=output)
        for name, value in self.parameters.items():
            kind = "bool_param" if isinstance(value, bool) else "int64_param"
            setattr(made.parameters[name], kind, value)
        return made

    def _rest(self) -> dict[str, Any]:
        outputs = [{"name": name} for name in self.outputs]
        return ({"outputs": outputs} if outputs else {}) | (
            {"parameters": dict(self.parameters)} if self.parameters else {}
        )


GOOD: Final = (
    Infer(
        (
            Tensor("token_ids", "INT64", (2, 3), (2, 5, 4, 2, 4, 0)),
            Tensor("segment_ids", "INT32", (2, 3), (0, 0, 1, 0, 0, 0)),
            Tensor("padding_mask", "BOOL", (2, 3), (1, 1, 1, 1, 1, 0)),
        ),
        ("mean_output", "sequence_output"),
        {"priority": 1, "timeout": 30_000_000},
    ),
    Infer((Tensor("input_ids", "UINT16", (1, 40), (7,) * 40),), parameters={"binary_data_output": True}),
    Infer((Tensor("text", "BYTES", (2,), ("Hello, world!", "é 日本 😀")),), ("cls_output", "token_counts")),
    Infer((Tensor("text", "BYTES", (1, 2), ("a pair", "of texts")),), ("pooler_output",), {"truncate": True}),
)


@dataclass(frozen=True, slots=True)
class Post:
    """A request over REST."""

    body: bytes
    headers: Mapping[str, str]
    path: str = PATH


def json_post(infer: Infer) -> Post:
    """Returns a request of JSON alone."""
    return Post(orjson.dumps(infer.document), {"content-type": "application/json"})


def binary_post(infer: Infer, head: Mapping[str, Any] | None = None) -> Post:
    """Returns a request of JSON and binary tensors."""
    data = orjson.dumps(head or infer.head)
    headers = {"content-type": "application/octet-stream", LENGTH_HEADER: str(len(data))}
    return Post(data + infer.raw, headers)


def compressed(post: Post, encoding: str) -> Post:
    """Compresses the body; lengths of parts stay those of the plain one."""
    return Post(COMPRESSIONS[encoding](post.body), {**post.headers, "content-encoding": encoding}, post.path)


def bad_post(seed: int) -> Post:
    """Makes a wrong request over REST; the same for the same seed.

    Example:
        >>> bad_post(3) == bad_post(3) != binary_post(GOOD[3])
        True
    """
    dice = random.Random(seed)
    infer = GOOD[seed % len(GOOD)]
    made = _BAD_POSTS[seed // len(GOOD) % len(_BAD_POSTS)](infer, dice)
    return Post(made.body, made.headers, dice.choice(PATHS))


def _odd_document(infer: Infer, dice: random.Random) -> Post:
    return Post(orjson.dumps(odd(infer.document, dice)), {"content-type": "application/json"})


def _broken_document(infer: Infer, dice: random.Random) -> Post:
    good = json_post(infer)
    return Post(mutated(good.body, dice.randrange(2**32)), good.headers)


def _odd_head(infer: Infer, dice: random.Random) -> Post:
    return binary_post(infer, odd(infer.head, dice))


def _broken_binary(infer: Infer, dice: random.Random) -> Post:
    good = binary_post(infer)
    return Post(mutated(good.body, dice.randrange(2**32)), good.headers)


def _odd_length(infer: Infer, dice: random.Random) -> Post:
    good = binary_post(infer)
    length = int(good.headers[LENGTH_HEADER])
    near = (length - 1, length + 1, len(good.body), len(good.body) + 1)
    return Post(good.body, {**good.headers, LENGTH_HEADER: str(dice.choice((*ODD_LENGTHS, *near)))})


def _broken_compression(infer: Infer, dice: random.Random) -> Post:
    encoding = dice.choice(list(COMPRESSIONS))
    good = compressed(dice.choice((json_post, binary_post))(infer), encoding)
    named = dice.choice((encoding, encoding, encoding, "gzip", "deflate", "br", "gzip, gzip", "identity"))
    return Post(mutated(good.body, dice.randrange(2**32)), {**good.headers, "content-encoding": named})


def _compressed_wrong_one(infer: Infer, dice: random.Random) -> Post:
    wrong = dice.choice(_BAD_POSTS[:5])(infer, dice)
    return compressed(wrong, dice.choice(list(COMPRESSIONS)))


_BAD_POSTS: Final = (
    _odd_document,
    _broken_document,
    _odd_head,
    _broken_binary,
    _odd_length,
    _broken_compression,
    _compressed_wrong_one,
)


def odd(document: Mapping[str, Any], dice: random.Random) -> dict[str, Any]:
    """Changes one or two members at any depth of a document: other values, or none."""
    changed: dict[str, Any] = orjson.loads(orjson.dumps(document))
    for _ in range(dice.randint(1, 2)):
        places = list(_places(changed))
        holder, key = dice.choice(places)
        if dice.random() < 0.15:
            del holder[key]
        else:
            holder[key] = deepcopy(dice.choice((*ODD, *ODD_NUMBERS, *ODD_NAMES)))
        if not changed:
            break
    return changed


def _places(value: Any) -> Any:
    keys = range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def bad_message(seed: int) -> bytes:
    """Makes a wrong `ModelInferRequest`: fields with odd values, or changed bytes; the same for the same seed."""
    dice = random.Random(seed)
    message = GOOD[seed % len(GOOD)].message(raw=dice.random() < 0.5)
    if seed // len(GOOD) % 2:
        return mutated(message.SerializeToString(), seed)
    for _ in range(dice.randint(1, 2)):
        _change(message, dice)
    return message.SerializeToString()


def _change(message: pb.ModelInferRequest, dice: random.Random) -> None:
    part = dice.choice(PARTS)
    tensor = dice.choice(message.inputs) if message.inputs else message.inputs.add()
    if part == "inputs":
        dice.choice((lambda: message.inputs.add().CopyFrom(tensor), lambda: message.inputs.pop()))()
    elif part == "outputs":
        output = message.outputs.add(name=dice.choice(ODD_NAMES))
        output.parameters["classification"].int64_param = dice.choice(ODD_NUMBERS)
    elif part == "parameters":
        holder = dice.choice((message.parameters, tensor.parameters))
        value = holder[dice.choice(("priority", "timeout", "truncate", "shared_memory_region", "other"))]
        _set_parameter(value, dice)
    elif part == "shape":
        tensor.shape[:] = [dice.choice(ODD_NUMBERS) for _ in range(dice.randrange(4))]
    elif part == "data":
        tensor.contents.int64_contents.extend(dice.choice(ODD_NUMBERS) for _ in range(dice.randrange(1, 9)))
    elif part == "raw":
        raw = list(message.raw_input_contents) or [b""]
        raw[dice.randrange(len(raw))] = mutated(dice.choice(raw) or b"\x01" * 8, dice.randrange(2**32))
        message.raw_input_contents[:] = raw[: dice.choice((len(raw), len(raw), len(raw) - 1))]
    elif part == "contents":
        kind = dice.choice(list(pb.InferTensorContents.DESCRIPTOR.fields_by_name))
        element = b"\xff\xfe" if kind == "bytes_contents" else 1
        getattr(tensor.contents, kind).extend([element] * dice.randrange(1, 9))
    else:
        holder_, name = dice.choice(
            (
                (message, "model_name"),
                (message, "model_version"),
                (message, "id"),
                (tensor, "name"),
                (tensor, "datatype"),
            )
        )
        setattr(holder_, name, dice.choice(ODD_NAMES))


def _set_parameter(value: Any, dice: random.Random) -> None:
    kind = dice.choice(list(pb.InferParameter.DESCRIPTOR.fields_by_name))
    values: Mapping[str, Any] = {
        "bool_param": True,
        "int64_param": dice.choice(ODD_NUMBERS),
        "uint64_param": dice.choice((0, 1, 2**64 - 1)),
        "double_param": dice.choice((0.5, float("nan"), float("inf"), -1e300)),
        "string_param": dice.choice(ODD_NAMES),
    }
    setattr(value, kind, values[kind])


@cache
def _contents_of(datatype: str) -> str:
    if datatype == "BOOL":
        return "bool_contents"
    prefix = "uint" if datatype.startswith("U") else "int"
    return f"{prefix}64_contents" if datatype.endswith("64") else f"{prefix}_contents"
