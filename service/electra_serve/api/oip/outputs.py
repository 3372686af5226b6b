"""Names of output tensors, and the tensors of a result: rectangles, padded with zeros."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from electra_serve.errors import InvalidInput
from electra_serve.serving.encode import EncodeResult
from electra_serve.serving.model_info import ModelInfo
from electra_serve.tensors import HEAD_OUTPUTS, POSITION_OUTPUTS, Float32Array, Int32Array, Output, Outputs

TOKEN_COUNTS: Final = "token_counts"  # noqa: S105  # unmasked positions of each row, so that padding is told from states
# Names of output tensors: the service's own, and those of transformers
OUTPUTS: Final[Mapping[str, Output]] = MappingProxyType(
    {output.value: output for output in Output} | {"last_hidden_state": Output.SEQUENCE, "pooler_output": Output.POOLED}
)
_LITTLE_ENDIAN: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}
)
_NAMES: Final = frozenset({*OUTPUTS, TOKEN_COUNTS})
_WITHOUT_NUMBERS: Final = frozenset({Output.CLS})  # the cheapest output, for requests of `TOKEN_COUNTS` alone


@dataclass(frozen=True, slots=True, eq=False)
class OutputTensor:
    """A tensor of a response, in C order."""

    name: str  # as the client spells it
    array: Float32Array | Int32Array

    @property
    def datatype(self) -> str:
        """Datatype of the protocol."""
        return "INT32" if self.array.dtype == np.int32 else "FP32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape


@dataclass(frozen=True, slots=True, eq=False)
class OutputBytes:
    """A tensor of a response as bytes, little-endian and in C order."""

    name: str  # as the client spells it
    datatype: str
    shape: tuple[int, ...]
    pieces: Sequence[memoryview]  # views of the result's arrays, and zeros

    @property
    def size(self) -> int:
        """Number of bytes."""
        return sum(map(len, self.pieces))


def outputs_of(info: ModelInfo) -> tuple[str, ...]:
    """Returns the names of all outputs of a model, as its metadata lists them."""
    head = head_output(info)
    return (*(output.value for output in Output if output not in HEAD_OUTPUTS or output is head), TOKEN_COUNTS)


def head_output(info: ModelInfo) -> Output | None:
    """Returns the output of a model's head; None without one."""
    if not info.labels:
        return None
    return Output.LOGITS if info.head == "sequence_classification" else Output.TOKEN_LOGITS


def check_outputs(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names without repetitions; raises `InvalidInput` for an unknown one, or two names of an output."""
    unique = tuple(dict.fromkeys(names))
    if not _NAMES.issuperset(unique):
        raise InvalidInput(
            f"outputs must be among {', '.join((*OUTPUTS, TOKEN_COUNTS))}; got an unknown one", field="outputs"
        )
    if len({OUTPUTS.get(name) for name in unique}) < len(unique):  # its numbers would count once, and be sent twice
        raise InvalidInput("each output must be requested under one name; got two", field="outputs")
    return unique


def computed_outputs(names: Iterable[str]) -> Outputs:
    """Returns the outputs that the service has to compute for these tensors."""
    return frozenset(OUTPUTS[name] for name in names if name in OUTPUTS) or _WITHOUT_NUMBERS


def to_tensors(result: EncodeResult, names: Sequence[str]) -> list[OutputTensor]:
    """Returns the tensors of a result with B sequences, the longest of S positions, in the order of `names`.

    Tensors of positions are (B, S, H) or (B, S, L), float32, with zeros after the end of each sequence. Others are
    (B, H) or (B, L), and `token_counts` is (B,) int32.
    """
    return [_to_tensor(result, name) for name in names]


def to_bytes(result: EncodeResult, names: Sequence[str]) -> list[OutputBytes]:
    """Returns the tensors of `to_tensors` as bytes, without a copy of tensors of positions."""
    return [_to_bytes(result, name) for name in names]


def rectangle_values(result: EncodeResult) -> int:
    """Returns the most numbers that the tensors of a result have, with padding."""
    rows = result.rows
    return sum(
        len(rows) * max(row.size(output) for row in rows)
        if rows and output in POSITION_OUTPUTS
        else sum(row.size(output) for row in rows)
        for output in result.outputs
    )


def _to_bytes(result: EncodeResult, name: str) -> OutputBytes:
    output = OUTPUTS.get(name)
    if output not in POSITION_OUTPUTS:
        tensor = _to_tensor(result, name)
        array = tensor.array.astype(_LITTLE_ENDIAN[tensor.datatype], copy=False)
        return OutputBytes(name, tensor.datatype, array.shape, [array.data.cast("B")])
    rows = [np.ascontiguousarray(row.computed(output), _LITTLE_ENDIAN["FP32"]) for row in result.rows]  # (n, H) each
    longest = _longest(result, rows)
    width = rows[0].shape[1]
    zeros = memoryview(bytes((longest - min(map(len, rows))) * width * rows[0].itemsize))
    pieces: list[memoryview] = []
    for row in rows:
        pieces.append(row.data.cast("B"))
        if padding := (longest - len(row)) * width * row.itemsize:
            pieces.append(zeros[:padding])
    return OutputBytes(name, "FP32", (len(rows), longest, width), pieces)


def _to_tensor(result: EncodeResult, name: str) -> OutputTensor:
    if name == TOKEN_COUNTS:
        return OutputTensor(name, np.array(result.row_tokens, np.int32))
    output = OUTPUTS[name]
    if output in POSITION_OUTPUTS:
        return OutputTensor(name, _rectangle(result, output))
    if len(result.rows) == 1:
        return OutputTensor(name, np.ascontiguousarray(result.rows[0].get(output))[np.newaxis])
    return OutputTensor(name, np.stack([row.get(output) for row in result.rows]))


def _rectangle(result: EncodeResult, output: Output) -> Float32Array:
    rows = [row.computed(output) for row in result.rows]  # (n, H) each
    longest = _longest(result, rows)
    if len(rows) == 1 and len(rows[0]) == longest:
        return np.ascontiguousarray(rows[0])[np.newaxis]
    rectangle = np.zeros((len(rows), longest, rows[0].shape[1]), np.float32)
    for place, row in zip(rectangle, rows, strict=True):
        place[: len(row)] = row
    return rectangle


def _longest(result: EncodeResult, rows: Sequence[Float32Array]) -> int:
    return max(row.length or len(computed) for row, computed in zip(result.rows, rows, strict=True))
