"""Converts `ModelInferRequest` to the protocol's parts that both transports share: no I/O, clock or log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from electra_serve.api.oip.decode import PARAMETERS, InferRequest, check_tensor_parameters
from electra_serve.api.oip.tensors import (
    BYTES,
    INPUTS,
    INTEGERS,
    Tensor,
    TensorHeader,
    check_elements,
    from_bytes,
    header_of,
    to_text,
)
from electra_serve.errors import InvalidInput
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from electra_serve.runtime.work_thread import await_loop_turn
from electra_serve.tensors import IntArray

# Field of `InferTensorContents` for each datatype, and the type of its numbers
CONTENTS: Final[Mapping[str, tuple[str, np.dtype[Any]]]] = MappingProxyType(
    {
        "BOOL": ("bool_contents", np.dtype("u1")),
        "INT8": ("int_contents", np.dtype("i4")),
        "INT16": ("int_contents", np.dtype("i4")),
        "INT32": ("int_contents", np.dtype("i4")),
        "INT64": ("int64_contents", np.dtype("i8")),
        "UINT8": ("uint_contents", np.dtype("u4")),
        "UINT16": ("uint_contents", np.dtype("u4")),
        "UINT32": ("uint_contents", np.dtype("u4")),
        "UINT64": ("uint64_contents", np.dtype("u8")),
        BYTES: ("bytes_contents", np.dtype("O")),
    }
)
MAX_RANK: Final = 16  # shapes up to this rank are copied to be checked
NUMBERS_PER_STEP: Final = 8192  # numbers that are converted in a millisecond


def is_raw(message: pb.ModelInferRequest) -> bool:
    """Returns True if the request, and so its response, has raw contents."""
    return bool(message.raw_input_contents)


def to_infer(message: pb.ModelInferRequest, model: str, max_sequences: int) -> InferRequest:
    """Returns the request for a model of this name.

    Raises:
        InvalidInput: An input has an unknown name or a wrong datatype, shape or number of elements. Or raw contents do
            not belong to the inputs one by one.
        PayloadTooLarge: There are more than `max_sequences` rows.
    """
    if len(message.inputs) > len(INPUTS):
        raise InvalidInput(f"inputs must be at most {len(INPUTS)}; got {len(message.inputs)}", field="inputs")
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidInput(
            f"raw_input_contents must have one entry for each input, {len(message.inputs)}; got {len(raw)}",
            field="raw_input_contents",
        )
    for output in message.outputs:
        check_tensor_parameters("outputs", output.parameters)
    return InferRequest(
        model=model,
        version=message.model_version,
        inputs=[
            _tensor(tensor, raw[index] if raw else None, model, max_sequences)
            for index, tensor in enumerate(message.inputs)
        ],
        outputs=[output.name for output in message.outputs] or None,
        parameters=to_parameters(message.parameters, PARAMETERS),
    )


def to_parameters(parameters: Mapping[str, pb.InferParameter], names: Iterable[str]) -> dict[str, object]:
    """Returns the values of the named parameters, without those that have none; others may be megabytes of text."""
    return {
        name: getattr(parameters[name], choice)
        for name in names
        if name in parameters and (choice := parameters[name].WhichOneof("parameter_choice")) is not None
    }


def _tensor(
    message: pb.ModelInferRequest.InferInputTensor, raw: bytes | None, model: str, max_sequences: int
) -> Tensor:
    header = header_of(message.name, message.datatype, _shape(message), max_sequences=max_sequences)
    check_tensor_parameters(header.name, message.parameters)
    if raw is None:
        return _from_contents(header, message.contents)
    if message.contents.ListFields():
        raise InvalidInput(
            f"contents field must not be specified when using raw_input_contents for '{header.name}' "
            f"for model '{model}'",
            field=header.name,
        )
    return from_bytes(header, memoryview(raw))


def _shape(message: pb.ModelInferRequest.InferInputTensor) -> tuple[int, ...]:
    """Returns a shape; protobuf's own sequence takes ten times as long to check."""
    rank = len(message.shape)
    if rank > MAX_RANK:
        raise InvalidInput(f"shape of an input must have 1 or 2 dimensions; got {rank}", field="inputs")
    return tuple(message.shape)


def _from_contents(header: TensorHeader, contents: pb.InferTensorContents) -> Tensor:
    field, dtype = CONTENTS[header.datatype]
    other = next((descriptor.name for descriptor, _ in contents.ListFields() if descriptor.name != field), None)
    if other is not None:
        raise InvalidInput(
            f"contents of {header.name} must be in {field} for {header.datatype}; got {other}", field=header.name
        )
    values = getattr(contents, field)
    check_elements(header, len(values))
    if header.datatype == BYTES:
        return Tensor(header, [to_text(header, index, value) for index, value in enumerate(values)])
    numbers = _numbers(values, dtype)
    _check_range(header, numbers)
    return Tensor(header, numbers)


def _check_range(header: TensorHeader, numbers: IntArray) -> None:
    """Raises `InvalidInput` for a number beyond the datatype, as JSON does: contents have wider numbers."""
    dtype = INTEGERS[header.datatype]
    if dtype.itemsize < numbers.itemsize and numbers.size:
        limits = np.iinfo(dtype)
        if numbers.min() < limits.min or numbers.max() > limits.max:
            raise InvalidInput(f"{header.name} must hold numbers of {header.datatype}; got another", field=header.name)


def _numbers(values: Sequence[int], dtype: np.dtype[Any]) -> IntArray:
    """Converts in steps, since the numbers become Python's first."""
    numbers = np.empty(len(values), dtype)
    for at in range(0, len(values), NUMBERS_PER_STEP):
        numbers[at : at + NUMBERS_PER_STEP] = values[at : at + NUMBERS_PER_STEP]
        if at + NUMBERS_PER_STEP < len(values):
            await_loop_turn()
    return numbers
