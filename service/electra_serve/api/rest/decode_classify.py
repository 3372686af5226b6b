"""Converts parsed JSON to a `ClassifyRequest`: checks fields, types and combinations."""

from __future__ import annotations

from typing import Final

from electra_serve.api.rest.decode import (
    BYTES_PER_VALUE,
    INPUT_FIELDS,
    input_of,
    model_of,
    reject_too_many,
    transit_of,
    truncation_of,
    validate_body,
)
from electra_serve.api.rest.schemas import ClassifyBody
from electra_serve.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from electra_serve.serving.classification.results import ClassifyOptions
from electra_serve.serving.classify import ClassifyRequest
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.transit_budget import Reservation
from electra_serve.tensors import Aggregation, TextInput, TokenInput

_AGGREGATIONS: Final = {aggregation.value: aggregation for aggregation in Aggregation}


def decode_classify(
    payload: object,
    context: RequestContext,
    reservation: Reservation | None = None,
    *,
    max_sequences: int,
    max_answer_bytes: int,
) -> ClassifyRequest:
    """Converts a parsed body.

    Raises:
        MalformedRequest: It is not an object, or a field is unknown, has a wrong type or contradicts another.
        InvalidInput: An id is not an integer, or an aggregation or truncation is unknown.
        PayloadTooLarge: There are more than `max_sequences`.
    """
    body = validate_body(payload, ClassifyBody)
    reject_too_many(body, (*INPUT_FIELDS, "question", "context"), max_sequences)
    return ClassifyRequest(
        input=_input(body, max_sequences),
        model=model_of(body),
        options=ClassifyOptions(
            top_k=body.top_k,
            raw_scores=bool(body.raw_scores),
            aggregation=_aggregation(body.aggregation),
            stride=body.stride,
            max_answer_length=body.max_answer_length,
        ),
        truncation=truncation_of(body),
        context=context,
        max_values=int(max_answer_bytes / BYTES_PER_VALUE["float"]),
        transit=transit_of(reservation, "float"),
    )


def _input(body: ClassifyBody, max_sequences: int) -> TokenInput | TextInput:
    if body.question is None and body.context is None:
        return input_of(body)
    others = [field for field in INPUT_FIELDS if getattr(body, field) is not None]
    if others:
        raise MalformedRequest(f"question and context replace {others[0]}; received both", field=others[0])
    if body.question is None or body.context is None:
        missing = "question" if body.question is None else "context"
        raise InvalidInput(f"question answering needs a question and a context; got no {missing}", field=missing)
    questions, contexts = _strings(body.question, "question"), _strings(body.context, "context")
    if isinstance(body.question, str):
        questions *= len(contexts)
    elif isinstance(body.context, str):
        contexts *= len(questions)
    if len(questions) != len(contexts):
        raise InvalidInput(
            f"context must have as many entries as question, {len(questions)}; got {len(contexts)}", field="context"
        )
    if len(contexts) > max_sequences:
        raise PayloadTooLarge(f"a request takes at most {max_sequences} sequences; received {len(contexts)}")
    return TextInput(tuple(zip(questions, contexts, strict=True)))


def _strings(values: object, field: str) -> tuple[str, ...]:
    if isinstance(values, str):
        return (values,)
    if not isinstance(values, list) or not set(map(type, values)) <= {str}:
        raise MalformedRequest(f"{field} must be a string or a list of strings; received another type", field=field)
    return tuple(values)


def _aggregation(name: object) -> Aggregation | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise MalformedRequest("aggregation must be a string; received another type", field="aggregation")
    if name not in _AGGREGATIONS:
        raise InvalidInput(
            f"aggregation must be one of {', '.join(_AGGREGATIONS)}; received another", field="aggregation"
        )
    return _AGGREGATIONS[name]
