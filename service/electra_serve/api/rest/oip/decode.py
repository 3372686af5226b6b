"""Converts the body of `infer`, JSON and the bytes after it, to an `InferRequest`.

Unknown members and parameters are ignored, and null means absent. Tensors are checked before their elements are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from electra_serve.api.oip.decode import PARAMETERS, InferRequest, check_tensor_parameters
from electra_serve.api.oip.outputs import check_outputs
from electra_serve.api.oip.tensors import Tensor, TensorHeader, from_bytes, header_of
from electra_serve.api.rest.headers import LENGTH_HEADER
from electra_serve.api.rest.members import Members
from electra_serve.api.rest.oip.elements import elements
from electra_serve.errors import InvalidInput, MalformedRequest, PayloadTooLarge

MAX_ID: Final = 1024  # characters, since each response repeats it
MAX_INPUTS: Final = 16  # a valid request has three
MAX_OUTPUTS: Final = 64  # a valid request has eight, under one or two names
_LENGTH_PATTERN: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True, eq=False)
class InferBody:
    """A request, and the form of its response."""

    infer: InferRequest
    id: str | None
    binary_by_default: bool
    binary: Mapping[str, bool]  # by the name of an output, if the request says

    def is_binary(self, output: str) -> bool:
        """Returns True if the response has this output as bytes."""
        return self.binary.get(output, self.binary_by_default)


def json_length(headers: Mapping[str, str], body_bytes: int) -> int:
    """Returns the length of the JSON at the beginning of a body; raises `MalformedRequest`."""
    value = headers.get(LENGTH_HEADER)
    if value is None:
        return body_bytes
    if not _LENGTH_PATTERN.fullmatch(value) or not 0 < int(value) <= body_bytes:
        raise MalformedRequest(
            f"{LENGTH_HEADER} must be the length of the JSON, from 1 to {body_bytes}, that of the body; "
            "got another value",
            field=LENGTH_HEADER,
        )
    return int(value)


def infer_body(payload: object, binary: memoryview, model: str, version: str, *, max_sequences: int) -> InferBody:
    """Converts parsed JSON, and the bytes of its tensors.

    Raises:
        MalformedRequest: A member is missing or has a wrong type, or there are too few or too many bytes.
        InvalidInput: An input or output is unknown, or its elements do not fit its datatype and shape.
        PayloadTooLarge: There are more than `max_sequences`.
    """
    members = Members(payload)
    id_ = members.string("id")
    if id_ is not None and len(id_) > MAX_ID:
        raise InvalidInput(f"id must have at most {MAX_ID} characters; got {len(id_)}", field="id")
    parameters = _parameters(members, "parameters")
    names, binary_outputs = _outputs(members)
    infer = InferRequest(
        model=model,
        version=version,
        inputs=_inputs(members, binary, max_sequences),
        outputs=names,
        parameters={name: value for name in PARAMETERS if (value := parameters.get(name)) is not None},
    )
    by_default = parameters.flag("binary_data_output", default=False)
    return InferBody(infer, id_, by_default, binary_outputs)


def _inputs(members: Members, binary: memoryview, max_sequences: int) -> Sequence[Tensor]:
    tensors, rest = [], binary
    for index, entry in enumerate(_objects(members.required("inputs"), "inputs", MAX_INPUTS)):
        header = _header(entry, f"inputs[{index}]", max_sequences)
        given = _parameters(entry, header.name)
        check_tensor_parameters(header.name, given.all)
        tensor, rest = _tensor(header, entry.get("data"), given.get("binary_data_size"), rest)
        tensors.append(tensor)
    if rest:
        raise MalformedRequest(
            f"the JSON must be followed by the bytes of the inputs, {len(binary) - len(rest)} in all; got {len(binary)}"
        )
    return tensors


def _header(entry: Members, place: str, max_sequences: int) -> TensorHeader:
    name, datatype = (_string(entry, place, member) for member in ("name", "datatype"))
    shape = entry.get("shape")
    if not isinstance(shape, list) or not set(map(type, shape)) <= {int}:
        raise MalformedRequest(
            f"{place}.shape must be a list of whole numbers; got another type", field=f"{place}.shape"
        )
    return header_of(name, datatype, shape, max_sequences=max_sequences)


def _tensor(header: TensorHeader, data: object, size: object, rest: memoryview) -> tuple[Tensor, memoryview]:
    """Returns a tensor, and the bytes of those after it."""
    if (data is None) == (size is None):
        received = "neither" if data is None else "both"
        raise MalformedRequest(
            f"{header.name} must have exactly one of data and parameter binary_data_size; got {received}",
            field=header.name,
        )
    if size is None:
        return Tensor(header, elements(data, header)), rest
    if type(size) is not int or size < 0:
        raise MalformedRequest(
            f"parameter binary_data_size of {header.name} must be a whole number of 0 or more; got another value",
            field=header.name,
        )
    if size > len(rest):
        raise MalformedRequest(
            f"{header.name} must have {size} bytes after the JSON, as binary_data_size says; got {len(rest)}",
            field=header.name,
        )
    return from_bytes(header, rest[:size]), rest[size:]


def _outputs(members: Members) -> tuple[Sequence[str] | None, Mapping[str, bool]]:
    """Returns the names of the outputs, None for all, and which of them are binary."""
    value = members.get("outputs")
    if value is None or value == []:
        return None, {}
    entries = _objects(value, "outputs", MAX_OUTPUTS)
    names = [_string(entry, f"outputs[{index}]", "name") for index, entry in enumerate(entries)]
    unique = check_outputs(names)
    binary: dict[str, bool] = {}
    for name, entry in zip(names, entries, strict=True):
        parameters = _parameters(entry, name)
        check_tensor_parameters(name, parameters.all)
        if parameters.get("binary_data") is not None:
            binary[name] = parameters.flag("binary_data", default=False)
    return unique, binary


def _objects(value: object, field: str, most: int) -> Sequence[Members]:
    if not isinstance(value, list) or not set(map(type, value)) <= {dict}:
        raise MalformedRequest(f"{field} must be a list of objects; got another type", field=field)
    if len(value) > most:
        raise PayloadTooLarge(f"{field} must have at most {most} entries; got {len(value)}", field=field)
    return [Members(entry) for entry in value]


def _string(entry: Members, place: str, member: str) -> str:
    value = entry.get(member)
    if not isinstance(value, str):
        raise MalformedRequest(f"{place}.{member} must be a string; got another type", field=f"{place}.{member}")
    return value


def _parameters(members: Members, field: str) -> Members:
    value = members.get("parameters")
    if value is not None and not isinstance(value, dict):
        raise MalformedRequest("parameters must be an object; got another type", field=field)
    return Members(value or {})
