"""Converts an inference request of either transport to an `EncodeRequest`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from electra_serve.api.oip.outputs import check_outputs, computed_outputs, outputs_of
from electra_serve.api.oip.tensors import TEXT, Tensor
from electra_serve.errors import InvalidInput, MalformedRequest, ModelNotFound
from electra_serve.serving.encode import EncodeRequest
from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.request_context import Deadline, Priority, RequestContext
from electra_serve.serving.transit_budget import Transit
from electra_serve.tensors import IntArray, TextInput, TokenInput, Truncation

VERSION: Final = "1"  # the only version of every model
# Parameters of tensors that need an extension which the service does not have
UNSUPPORTED_PARAMETERS: Final = frozenset(
    {"classification", "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"}
)
PARAMETERS: Final = ("priority", "timeout", "truncate")  # those of a request that `decode` reads
MAX_WHOLE: Final = 2**64 - 1  # largest number of a parameter, an unsigned integer of gRPC
_PRIORITIES: Final = (Priority.NORMAL, Priority.HIGH, Priority.NORMAL)  # 0 is the default, 1 the highest


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """An inference request; without `outputs` all of the model are computed."""

    model: str
    version: str  # "" for any
    inputs: Sequence[Tensor]
    outputs: Sequence[str] | None
    parameters: Mapping[str, object]  # of `PARAMETERS`, unchecked


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A request for the service, and the names of the tensors that its response has."""

    request: EncodeRequest
    outputs: tuple[str, ...]
    spelling: Mapping[str, str]  # of the inputs, by field

    def renamed(self, field: str | None) -> str | None:
        """Returns a field of an error as the client spells it.

        Example:
            >>> request = EncodeRequest(TextInput(["a"]))
            >>> Decoded(request, (), {"token_ids": "input_ids"}).renamed("token_ids[3]")
            'input_ids[3]'
        """
        if field is None:
            return None
        return re.sub(r"^\w+", lambda name: self.spelling.get(name[0], name[0]), field)


def decode(
    infer: InferRequest,
    info: ModelInfo,
    context: RequestContext,
    *,
    max_values: int | None = None,
    transit: Transit | None = None,
) -> Decoded:
    """Converts a request whose tensors are checked one by one.

    Raises:
        ModelNotFound: It names another version than `VERSION`.
        InvalidInput: An input is missing, given twice or of another shape than the ids, or an output is unknown.
        MalformedRequest: A parameter has a wrong type or value.
    """
    check_version(infer.version)
    names = check_outputs(infer.outputs) if infer.outputs else outputs_of(info)
    by_field = _by_field(infer.inputs)
    request = EncodeRequest(
        input=_text(by_field) if TEXT in by_field else _tokens(by_field),
        model=infer.model,
        outputs=computed_outputs(names),
        truncation=_truncation(infer.parameters),
        context=with_parameters(context, infer.parameters),
        max_values=max_values,
        transit=transit,
        rectangular=True,
    )
    return Decoded(request, names, {field: tensor.header.name for field, tensor in by_field.items()})


def check_version(version: str) -> None:
    """Raises `ModelNotFound` for another version than `VERSION`; "" means any."""
    if version not in {"", VERSION}:
        raise ModelNotFound(f"every model has the version {VERSION} only; got another", field="model_version")


def check_tensor_parameters(name: str, parameters: Mapping[str, object]) -> None:
    """Raises `InvalidInput` for parameters of a tensor that need an extension; others are ignored."""
    if not UNSUPPORTED_PARAMETERS.isdisjoint(parameters):
        raise InvalidInput(
            f"parameters of {name} must not be of the extensions for classification and shared memory, which are not "
            "supported",
            field=name,
        )


def with_parameters(context: RequestContext, parameters: Mapping[str, object]) -> RequestContext:
    """Returns the context with the request's `priority` and `timeout` in µs; raises `MalformedRequest`.

    Priority 1 is high, 2 normal, and higher numbers are low. 0 and no timeout leave the context as it is.
    """
    if not parameters:
        return context
    priority, timeout_us = (_whole(parameters, name) for name in ("priority", "timeout"))
    if priority:
        context = replace(context, priority=_PRIORITIES[priority] if priority < len(_PRIORITIES) else Priority.LOW)
    if timeout_us:
        asked = Deadline.after(timeout_us / 1e6)
        earlier = min((d for d in (asked, context.deadline) if d is not None), key=lambda deadline: deadline.at_s)
        context = replace(context, deadline=earlier)
    return context


def _whole(parameters: Mapping[str, object], name: str) -> int:
    value = parameters.get(name, 0)
    whole = int(value) if isinstance(value, float) and value.is_integer() else value  # JSON has one type for both
    if isinstance(whole, bool) or not isinstance(whole, int) or not 0 <= whole <= MAX_WHOLE:
        raise MalformedRequest(f"parameter {name} must be a whole number of 0 or more; got another value", field=name)
    return whole


def _truncation(parameters: Mapping[str, object]) -> Truncation:
    value = parameters.get("truncate", False)
    if not isinstance(value, bool):
        raise MalformedRequest("parameter truncate must be true or false; got another type", field="truncate")
    return Truncation.LONGEST_FIRST if value else Truncation.NONE


def _by_field(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    by_field: dict[str, Tensor] = {}
    for tensor in tensors:
        header = tensor.header
        if header.field in by_field:
            raise InvalidInput(
                f"each input must be given once; got {by_field[header.field].header.name} and {header.name}",
                field=header.name,
            )
        by_field[header.field] = tensor
    if (TEXT in by_field) == ("token_ids" in by_field):
        received = "both" if TEXT in by_field else "neither"
        raise InvalidInput(f"inputs must have exactly one of token_ids and text; got {received}", field="inputs")
    if TEXT in by_field and len(by_field) > 1:
        raise InvalidInput("segment_ids and padding_mask go with token_ids; got text", field="inputs")
    return by_field


def _text(by_field: Mapping[str, Tensor]) -> TextInput:
    tensor = by_field[TEXT]
    texts: Sequence[str] = tensor.data  # type: ignore[assignment]  # the header's datatype says so
    if len(tensor.header.shape) == 2 and tensor.header.shape[1] == 2:
        return TextInput(tuple(zip(texts[::2], texts[1::2], strict=True)))
    return TextInput(tuple(texts))


def _tokens(by_field: Mapping[str, Tensor]) -> TokenInput:
    ids = by_field["token_ids"]
    for tensor in by_field.values():
        if tensor.header.shape != ids.header.shape:
            raise InvalidInput(
                f"shape of {tensor.header.name} must be that of {ids.header.name}, {list(ids.header.shape)}; "
                f"got {list(tensor.header.shape)}",
                field=tensor.header.name,
            )
    return TokenInput(*(_rows(by_field.get(name)) for name in ("token_ids", "segment_ids", "padding_mask")))  # type: ignore[arg-type]  # ids are there


def _rows(tensor: Tensor | None) -> Sequence[IntArray] | None:
    """Returns the rows of a rectangle, views of its elements."""
    if tensor is None:
        return None
    data: IntArray = tensor.data  # type: ignore[assignment]  # the header's datatype says so
    shape = tensor.header.shape
    if shape[0] == 0 and len(shape) == 2:
        return []  # numpy rejects huge second dimensions even so
    return list(data.reshape(shape if len(shape) == 2 else (1, *shape)))
