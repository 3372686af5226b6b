"""Converts parsed JSON to a `TokenizeRequest`: checks fields and types."""

from __future__ import annotations

from electra_serve.api.rest.decode import (
    BYTES_PER_VALUE,
    model_of,
    reject_too_many,
    transit_of,
    validate_body,
)
from electra_serve.api.rest.schemas import TokenizeBody
from electra_serve.errors import InvalidInput, MalformedRequest
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.tokens import TokenizeRequest
from electra_serve.serving.transit_budget import Reservation
from electra_serve.tensors import TextInput


def decode_tokenize(
    payload: object,
    context: RequestContext,
    reservation: Reservation | None = None,
    *,
    max_sequences: int,
    max_answer_bytes: int,
) -> TokenizeRequest:
    """Converts a parsed body.

    Raises:
        MalformedRequest: It is not an object, or a field is missing, unknown or has a wrong type.
        InvalidInput: There is no text.
        PayloadTooLarge: There are more than `max_sequences`.
    """
    if isinstance(payload, dict) and payload.get("text") is None:
        raise MalformedRequest("text is required; received none", field="text")
    body = validate_body(payload, TokenizeBody)
    reject_too_many(body, ("text",), max_sequences)
    return TokenizeRequest(
        input=TextInput(_texts(body.text)),
        model=model_of(body),
        prompted=False,
        add_special_tokens=body.add_special_tokens is not False,
        all_pieces=True,
        context=context,
        max_values=int(max_answer_bytes / BYTES_PER_VALUE["float"]),
        transit=transit_of(reservation, "float"),
    )


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not set(map(type, value)) <= {str}:
        raise MalformedRequest("text must be a string or a list of strings; received another type", field="text")
    if not value:
        raise InvalidInput("text must have at least one text; received none", field="text")
    return tuple(value)
