"""Converts parsed JSON to an `EncodeRequest`: checks fields, types and combinations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar, cast, get_args

from pydantic import ValidationError

from electra_serve.api.request_options import combine_truncation
from electra_serve.api.rest.rows import id_rows, text_rows
from electra_serve.api.rest.schemas import EncodeBody, EncodingFormat, InputBody, ModelBody
from electra_serve.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from electra_serve.serving.encode import EncodeRequest
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.transit_budget import Reservation, Transit
from electra_serve.settings.model_names import MAX_NAME
from electra_serve.tensors import DEFAULT_OUTPUTS, Output, Outputs, TextInput, TokenInput, Truncation

B = TypeVar("B", bound=ModelBody)

INPUT_FIELDS: Final = ("token_ids", "segment_ids", "padding_mask", "text")
_FIELD_TYPES: Final = {
    "add_special_tokens": "true or false",
    "model": "a string",
    "truncate": "true or false",
    "raw_scores": "true or false",
    "top_k": "an integer",
    "stride": "an integer",
    "max_answer_length": "an integer",
}
_TRUNCATIONS: Final = {truncation.value: truncation for truncation in Truncation}
_OUTPUTS: Final = {output.value: output for output in Output}
_FORMATS: Final = get_args(EncodingFormat)
# Approximate bytes of a float32 in a response
BYTES_PER_VALUE: Final[dict[EncodingFormat, float]] = {"float": 12.0, "base64": 16 / 3}
FLOAT32_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Decoded:
    """Request, and the format of numbers in its response."""

    request: EncodeRequest
    encoding_format: EncodingFormat


def decode(
    payload: object,
    context: RequestContext,
    reservation: Reservation | None = None,
    *,
    max_sequences: int,
    max_answer_bytes: int,
) -> Decoded:
    """Converts a parsed body.

    Raises:
        MalformedRequest: It is not an object, or a field is unknown, has a wrong type or contradicts another.
        InvalidInput: An id is not an integer, or an output, format or truncation is unknown.
        PayloadTooLarge: There are more than `max_sequences`.
    """
    body = validate_body(payload, EncodeBody)
    reject_too_many(body, INPUT_FIELDS, max_sequences)
    encoding_format = _encoding_format(body.encoding_format)
    request = EncodeRequest(
        input=input_of(body),
        model=model_of(body),
        outputs=_outputs(body.outputs),
        truncation=truncation_of(body),
        context=context,
        max_values=int(max_answer_bytes / BYTES_PER_VALUE[encoding_format]),
        transit=transit_of(reservation, encoding_format),
    )
    return Decoded(request, encoding_format)


def transit_of(reservation: Reservation | None, encoding_format: EncodingFormat) -> Transit | None:
    """Counts each number of the response twice: as float32 in the result, and as rendered."""
    if reservation is None:
        return None
    return Transit(reservation, FLOAT32_BYTES + math.ceil(BYTES_PER_VALUE[encoding_format]))


def validate_body(payload: object, body: type[B]) -> B:
    """Checks the names of the fields, and the types of some; raises `MalformedRequest`."""
    if not isinstance(payload, dict):
        raise MalformedRequest("the body must be a JSON object; received another type")
    if not payload.keys() <= body.model_fields.keys():
        raise MalformedRequest(f"the fields are {', '.join(sorted(body.model_fields))}; received an unknown one")
    try:
        return body.model_validate(payload)
    except ValidationError as error:
        field = str(error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][0])
        raise MalformedRequest(f"{field} must be {_FIELD_TYPES[field]}; received another type", field=field) from error


def model_of(body: ModelBody) -> str | None:
    """Returns the name of the model."""
    return None if body.model is None else body.model[: MAX_NAME + 1]  # no model has a longer name


def input_of(body: InputBody) -> TokenInput | TextInput:
    """Converts ids or texts; raises `MalformedRequest`, and `InvalidInput` for an id that is not an integer."""
    if (body.token_ids is None) == (body.text is None):
        received = "neither" if body.text is None else "both"
        raise MalformedRequest(f"exactly one of token_ids and text is needed; received {received}")
    if body.text is not None:
        if body.segment_ids is not None or body.padding_mask is not None:
            raise MalformedRequest("segment_ids and padding_mask go with token_ids; received text")
        return TextInput(text_rows(body.text, "text"))
    return TokenInput(
        token_ids=id_rows(body.token_ids, "token_ids"),
        segment_ids=None if body.segment_ids is None else id_rows(body.segment_ids, "segment_ids"),
        padding_mask=None if body.padding_mask is None else id_rows(body.padding_mask, "padding_mask"),
    )


def reject_too_many(body: ModelBody, fields: Iterable[str], max_sequences: int) -> None:
    """Raises `PayloadTooLarge` if a field has more entries than `max_sequences`."""
    for field in fields:
        values = getattr(body, field)
        if isinstance(values, list) and len(values) > max_sequences:
            raise PayloadTooLarge(
                f"a request takes at most {max_sequences} sequences; received {len(values)}", field=field
            )


def _outputs(names: object) -> Outputs:
    if names is None:
        return DEFAULT_OUTPUTS
    if not isinstance(names, list) or not set(map(type, names)) <= {str}:
        raise MalformedRequest("outputs must be a list of strings; received another type", field="outputs")
    if len(names) > len(_OUTPUTS):
        raise InvalidInput(f"outputs must be at most {len(_OUTPUTS)} values; received {len(names)}", field="outputs")
    if not _OUTPUTS.keys() >= set(names):
        raise InvalidInput(f"outputs must be among {', '.join(_OUTPUTS)}; received an unknown one", field="outputs")
    return frozenset(map(_OUTPUTS.__getitem__, names))


def truncation_of(body: InputBody) -> Truncation:
    """Combines `truncate` and `truncation`; raises `MalformedRequest` or `InvalidInput`."""
    name = body.truncation
    if name is not None and not isinstance(name, str):
        raise MalformedRequest("truncation must be a string; received another type", field="truncation")
    if name is not None and name not in _TRUNCATIONS:
        valid = ", ".join(_TRUNCATIONS)
        raise InvalidInput(f"truncation must be one of {valid}; received another", field="truncation")
    return combine_truncation(bool(body.truncate), None if name is None else _TRUNCATIONS[name])


def _encoding_format(name: object) -> EncodingFormat:
    if name is None:
        return "float"
    if not isinstance(name, str):
        raise MalformedRequest("encoding_format must be a string; received another type", field="encoding_format")
    if name not in _FORMATS:
        raise InvalidInput(
            f"encoding_format must be one of {', '.join(_FORMATS)}; received another", field="encoding_format"
        )
    return cast("EncodingFormat", name)
