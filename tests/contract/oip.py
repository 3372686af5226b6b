"""Requests and responses of the Open Inference Protocol over REST, and its differences from the service's own APIs.

Sequences are rectangles: shorter ones are padded with zeros, and a mask marks the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import httpx
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from electra_serve.tensors import DEFAULT_OUTPUTS, POSITION_OUTPUTS, Float32Array, Output
from tests.contract.outcome import HTTP_STATUS, Outcome, Rejection, Success
from tests.contract.query import Query, Rows, Wire
from tests.contract.read import check_retry_after
from tests.contract.stack import TINY
from tests.oip_requests import Bytes, arrays, binary, strings, tensor

STATUS: Final[Mapping[str, int | str]] = MappingProxyType({**HTTP_STATUS, "invalid_input": 400})
INEXPRESSIBLE: Final[Mapping[str, Callable[[Query], bool]]] = MappingProxyType(
    {
        "the path names the model": lambda query: query.model is None,
        "a request allows truncation, but names no rule": lambda query: query.truncation is not None,
        "texts or pairs, not both": lambda query: len(set(map(type, query.text or ()))) > 1,
        "a response does not say that texts were cut": lambda query: query.text is not None and query.truncate,
    }
)
"""Requests that the protocol does not have, by reason."""
FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "an empty row": "padding_mask[1]",  # all padding
        "a shorter row of segments": "segment_ids",  # of another shape than the ids
        "a longer row of segments": "segment_ids",
        "a shorter row of mask": "padding_mask",
        "a longer row of mask": "padding_mask",
    }
)
"""Fields at fault that differ because rows are parts of a rectangle, by the name of the case."""
MEMBERS: Final = {"error", "code", "request_id"}
OPTIONAL_MEMBERS: Final = {"field", "retry_after_s"}


@dataclass(frozen=True, slots=True)
class OipWire(Wire):
    """A request, and its parts that are not in the body.

    Attributes:
        model: Name in the path.
        headers: Headers of the binary extension.
        rows: Length, and number of ones in the mask, of each sequence of ids before it was padded.
    """

    model: str = TINY
    headers: tuple[tuple[str, str], ...] = ()
    rows: tuple[tuple[int, int], ...] = ()


def expressible(query: Query) -> bool:
    """Returns True if the protocol has such a request."""
    return not any(applies(query) for applies in INEXPRESSIBLE.values())


def to_wire(query: Query, *, as_bytes: bool) -> OipWire:
    """The request as this protocol has it; skips the test if it has none."""
    for reason, applies in INEXPRESSIBLE.items():
        if applies(query):
            pytest.skip(reason)
    inputs, rows = _inputs(query)
    outputs = [{"name": output} for output in query.outputs or sorted(DEFAULT_OUTPUTS)]
    parameters = {"truncate": query.truncate, "binary_data_output": as_bytes}
    members: dict[str, Any] = {"outputs": [*outputs, {"name": "token_counts"}], "parameters": parameters}
    if as_bytes:
        body, headers = binary(*(_bytes(*given) for given in inputs), **members)
        return OipWire(body, "application/octet-stream", query.model or "", tuple(headers.items()), rows)
    described = [tensor(name, array.tolist(), array.shape, _datatype(array)) for name, array in inputs]
    return OipWire(orjson.dumps({"inputs": described, **members}), model=query.model or "", rows=rows)


def response(received: httpx.Response, wire: Wire) -> Outcome:
    """Reads an HTTP response."""
    assert received.headers["x-content-type-options"] == "nosniff"
    if received.status_code != 200:
        return _rejection(received)
    found = arrays(received)
    length = received.headers.get("inference-header-content-length")
    content = orjson.loads(received.content[: len(received.content) if length is None else int(length)])
    counts = found.pop("token_counts").tolist()
    rows = wire.rows if isinstance(wire, OipWire) else ()
    return Success(
        model=content["model_name"],
        outputs={Output(name): _ragged(Output(name), array, rows, counts) for name, array in found.items()},
        sequences=len(counts),
        tokens=sum(counts),
        truncated=[attended > count for (_, attended), count in zip(rows, counts, strict=True)]
        if rows
        else [False] * len(counts),
    )


def _inputs(query: Query) -> tuple[list[tuple[str, NDArray[Any]]], tuple[tuple[int, int], ...]]:
    """Returns the tensors, and the length and the ones of each row of ids."""
    if query.text is not None:
        return [
            ("text", np.array([list(text) if isinstance(text, tuple) else text for text in query.text], object))
        ], ()
    ids = query.token_ids or []
    lengths = [len(row) for row in ids]
    mask = query.padding_mask
    if mask is None and len(set(lengths)) > 1:
        mask = [[1] * length for length in lengths]
    given = {"token_ids": ids, "segment_ids": query.segment_ids, "padding_mask": mask}
    attended = [sum(row) for row in mask] if mask is not None else lengths
    tensors = [(name, _rectangle(rows)) for name, rows in given.items() if rows is not None]
    return tensors, tuple(zip(lengths, attended, strict=False))


def _rectangle(rows: Rows) -> NDArray[np.int64]:
    rectangle = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
    for place, row in zip(rectangle, rows, strict=True):
        place[: len(row)] = row
    return rectangle


def _datatype(array: NDArray[Any]) -> str:
    return "BYTES" if array.dtype == object else "INT64"


def _bytes(name: str, array: NDArray[Any]) -> Bytes:
    if array.dtype == object:
        return Bytes(name, strings(*(text.encode() for text in array.reshape(-1))), array.shape, "BYTES")
    return Bytes.of(name, array)


def _ragged(
    output: Output, array: Float32Array, rows: Sequence[tuple[int, int]], counts: Sequence[int]
) -> list[Float32Array]:
    """Returns the rows without padding, which is zeros."""
    if output not in POSITION_OUTPUTS:
        return list(array)
    lengths = [min(length, array.shape[1]) for length, _ in rows] or counts
    assert not any(row[length:].any() for row, length in zip(array, lengths, strict=True))
    return [row[:length] for row, length in zip(array, lengths, strict=True)]


def _rejection(received: httpx.Response) -> Rejection:
    content = received.json()
    assert received.headers["content-type"] == "application/json"
    assert MEMBERS <= content.keys() <= MEMBERS | OPTIONAL_MEMBERS
    assert content["request_id"] == received.headers["x-request-id"]
    check_retry_after(received.headers.get("retry-after"), content.get("retry_after_s"))
    return Rejection(
        code=content["code"],
        status=received.status_code,
        message=content["error"],
        field=content.get("field"),
        retry_after_s=content.get("retry_after_s"),
        request_id=content["request_id"],
        raw=received.content,
    )
