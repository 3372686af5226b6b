"""Converts the JSON of `POST /v1/embeddings` to an `EmbedRequest`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from electra_serve.api.rest.decode import BYTES_PER_VALUE, transit_of
from electra_serve.api.rest.members import Members
from electra_serve.api.rest.rows import texts_or_ids
from electra_serve.api.rest.schemas import EncodingFormat
from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.serving.embed import EmbedRequest
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.transit_budget import Reservation

FORMATS: Final = ("float", "base64")


@dataclass(frozen=True, slots=True)
class DecodedEmbeddings:
    """Request, and the format of numbers in its response."""

    request: EmbedRequest
    encoding_format: EncodingFormat


def decode_embeddings(
    payload: object,
    context: RequestContext,
    reservation: Reservation | None = None,
    *,
    max_inputs: int,
    max_answer_bytes: int,
) -> DecodedEmbeddings:
    """Converts a parsed body.

    Raises:
        MalformedRequest: A member has a wrong type, or `input` is missing.
        InvalidInput: `input` is empty, or a value is not allowed.
        PayloadTooLarge: There are more than `max_inputs`.
    """
    members = Members(payload)
    encoding_format = cast("EncodingFormat", members.choice("encoding_format", FORMATS, "float"))
    request = EmbedRequest(
        input=texts_or_ids(members.required("input"), "input", partial(_check_count, max_inputs=max_inputs)),
        model=members.model(),
        prompt_name=members.string("prompt_name"),
        input_type=members.string("input_type"),
        dimensions=members.count("dimensions"),
        context=context,
        max_values=int(max_answer_bytes / BYTES_PER_VALUE[encoding_format]),
        transit=transit_of(reservation, encoding_format),
    )
    return DecodedEmbeddings(request, encoding_format)


def _check_count(values: list[object], max_inputs: int) -> None:
    if not values:
        raise InvalidInput("input must have at least one text; got none", field="input")
    if len(values) > max_inputs:
        raise PayloadTooLarge(f"input must have at most {max_inputs} texts; got {len(values)}", field="input")
