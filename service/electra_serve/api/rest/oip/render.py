"""Renders results as JSON, or as JSON and the bytes of tensors, which are views of the arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import orjson

from electra_serve.api.oip.decode import VERSION
from electra_serve.api.oip.outputs import OutputBytes, OutputTensor, rectangle_values, to_bytes, to_tensors
from electra_serve.api.rest.oip.compression import compressed
from electra_serve.api.rest.oip.decode import InferBody
from electra_serve.api.rest.render import INLINE_FLOATS, RunOnThread, flat_list, in_chunks
from electra_serve.serving.encode import EncodeResult

Chunk = bytes | memoryview

INLINE_BYTES: Final = 65_536  # shorter tensors are joined to one chunk, which is cheaper than several
INLINE_COMPRESSED_BYTES: Final = (
    16_384  # longer responses are compressed on a thread: that takes a millisecond and more
)


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """Chunks of a response; `json_bytes` is the length of the JSON if tensors follow, before compression."""

    chunks: Sequence[Chunk]
    json_bytes: int | None


async def render(
    result: EncodeResult, names: Sequence[str], body: InferBody, coding: str, on_thread: RunOnThread
) -> Rendered:
    """Renders the tensors `names` of a result, on a thread if they are large."""
    large = rectangle_values(result) > INLINE_FLOATS
    tensors: list[OutputTensor | OutputBytes] = []
    for name in names:
        make = partial(to_bytes if body.is_binary(name) else to_tensors, result, (name,))
        tensors += await on_thread(make) if large else make()
    header = await in_chunks(_json(result.model, tensors, body), on_thread, large=large)
    pieces = [piece for tensor in tensors if isinstance(tensor, OutputBytes) for piece in tensor.pieces]
    json_bytes = sum(map(len, header)) if pieces else None
    chunks: Sequence[Chunk] = [*header, *pieces]
    if sum(map(len, chunks)) <= INLINE_BYTES:
        chunks = [b"".join(chunks)]
    if coding:
        large = sum(map(len, chunks)) > INLINE_COMPRESSED_BYTES
        chunks = await in_chunks(compressed(chunks, coding), on_thread, large=large)
    return Rendered(chunks, json_bytes)


def _json(model: str, tensors: Sequence[OutputTensor | OutputBytes], body: InferBody) -> Iterator[bytes]:
    members = {"model_name": model, "model_version": VERSION} | ({} if body.id is None else {"id": body.id})
    yield orjson.dumps(members)[:-1] + b',"outputs":['
    for index, tensor in enumerate(tensors):
        described = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        yield (b"," if index else b"") + orjson.dumps(described)[:-1]
        if isinstance(tensor, OutputBytes):
            yield b',"parameters":{"binary_data_size":%d}}' % tensor.size
        else:
            yield b',"data":'
            yield from flat_list(tensor.array)
            yield b"}"
    yield b"]}"
