"""Requests of the Open Inference Protocol, and the tensors of their responses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

INFER: Final = "/v2/models/electra_demo/infer"
LENGTH: Final = "inference-header-content-length"
DTYPES: Final = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}


def tensor(name: str, data: object, shape: Sequence[int], datatype: str = "INT64") -> dict[str, Any]:
    """An input in JSON."""
    return {"name": name, "shape": list(shape), "datatype": datatype, "data": data}


def ids(data: object, *shape: int, name: str = "token_ids") -> dict[str, Any]:
    """A request of ids in JSON."""
    return {"inputs": [tensor(name, data, shape)]}


@dataclass(frozen=True, slots=True)
class Bytes:
    """An input whose elements follow the JSON."""

    name: str
    data: bytes
    shape: Sequence[int]
    datatype: str = "INT64"

    @classmethod
    def of(cls, name: str, array: NDArray[Any]) -> Bytes:
        """The elements of an array, in its own type."""
        datatype = "BOOL" if array.dtype == bool else array.dtype.name.upper()
        return cls(name, array.tobytes(), array.shape, datatype)

    @property
    def header(self) -> dict[str, Any]:
        """Its description."""
        size = {"binary_data_size": len(self.data)}
        return {"name": self.name, "shape": list(self.shape), "datatype": self.datatype, "parameters": size}


def strings(*texts: bytes) -> bytes:
    """Elements of BYTES."""
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def binary(*inputs: Bytes, **members: Any) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request with bytes."""
    head = json.dumps({"inputs": [given.header for given in inputs], **members}).encode()
    return head + b"".join(given.data for given in inputs), {LENGTH: str(len(head))}


def arrays(response: httpx.Response) -> dict[str, NDArray[Any]]:
    """The tensors of a response; fails unless it is of the protocol's form."""
    assert response.status_code == 200, response.text
    content, tail = response.content, b""
    if LENGTH in response.headers:
        assert response.headers["content-type"] == "application/octet-stream"
        length = int(response.headers[LENGTH])
        content, tail = content[:length], content[length:]
    else:
        assert response.headers["content-type"] == "application/json"
    found = {}
    for output in json.loads(content)["outputs"]:
        dtype, size = DTYPES[output["datatype"]], _size(output)
        flat = np.array(output["data"], dtype) if size is None else np.frombuffer(tail[:size], dtype)
        tail = tail[size or 0 :]
        found[output["name"]] = flat.reshape(output["shape"])
    assert not tail
    return found


def _size(output: Mapping[str, Any]) -> int | None:
    assert ("data" in output) != ("parameters" in output)
    size: int | None = output.get("parameters", {}).get("binary_data_size")
    return size
