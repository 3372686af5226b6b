"""Converts the JSON of Text Embeddings Inference's routes to requests; the model is not known yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from electra_serve.api.rest.decode import BYTES_PER_VALUE, transit_of
from electra_serve.api.rest.members import Members
from electra_serve.api.rest.rows import id_rows, text_rows, texts_or_ids
from electra_serve.api.rest.tei.errors import empty_inputs
from electra_serve.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from electra_serve.presets.tokenizers.pairs import TextOrPair
from electra_serve.serving.classification.results import ClassifyOptions
from electra_serve.serving.classify import ClassifyRequest
from electra_serve.serving.embed import EmbedRequest
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.tokens import DetokenizeRequest, TokenizeRequest
from electra_serve.serving.transit_budget import Reservation, Transit
from electra_serve.tensors import TextInput, TokenInput, Truncation

Q = TypeVar("Q", EmbedRequest, ClassifyRequest, TokenizeRequest, DetokenizeRequest)

DIRECTIONS: Final = {"right": Truncation.RIGHT, "left": Truncation.LEFT}


@dataclass(frozen=True, slots=True)
class Decoded(Generic[Q]):
    """A request, and the form of its response."""

    request: Q
    single: bool = False  # one input, whose result is not in a list
    raw_scores: bool = False
    truncation: Truncation | None = None  # of a classification; None for the model's setting


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a request, and its context."""

    context: RequestContext
    reservation: Reservation | None
    max_inputs: int
    max_answer_bytes: int

    @property
    def max_values(self) -> int:
        """Most numbers of a response."""
        return int(self.max_answer_bytes / BYTES_PER_VALUE["float"])

    @property
    def transit(self) -> Transit | None:
        """Share of the transit budget."""
        return transit_of(self.reservation, "float")

    def check(self, values: list[object], field: str = "inputs") -> None:
        """Raises an error for no inputs and for too many."""
        if not values:
            raise empty_inputs()
        if len(values) > self.max_inputs:
            raise PayloadTooLarge(
                f"{field} must have at most {self.max_inputs} entries; got {len(values)}", field=field
            )


def decode_embed(payload: object, bounds: Bounds, *, per_token: bool = False) -> Decoded[EmbedRequest]:
    """Converts a body of `/embed`, or of `/embed_all` with `per_token`.

    Raises:
        MalformedRequest: A member has a wrong type, or `inputs` is missing.
        InvalidInput: `inputs` is empty, or a value is not allowed.
        PayloadTooLarge: There are more inputs than allowed.
    """
    members = Members(payload)
    return Decoded(
        EmbedRequest(
            input=texts_or_ids(members.required("inputs"), "inputs", bounds.check),
            prompt_name=members.string("prompt_name"),
            normalize=members.flag("normalize", default=True),
            dimensions=None if per_token else members.count("dimensions"),
            per_token=per_token,
            truncation=truncation_of(members),
            context=bounds.context,
            max_values=bounds.max_values,
            transit=bounds.transit,
        )
    )


def decode_similarity(payload: object, bounds: Bounds) -> Decoded[EmbedRequest]:
    """Converts a body of `/similarity`: the first text is the source; raises as `decode_embed`."""
    members = Members(payload)
    inputs = _object(members.required("inputs"), "inputs")
    source, sentences = inputs.required("source_sentence"), inputs.required("sentences")
    if not isinstance(source, str):
        raise MalformedRequest("source_sentence must be a string; got another type", field="inputs.source_sentence")
    texts = _strings(sentences, "sentences", bounds)
    given = members.get("parameters")
    parameters = _object({} if given is None else given, "parameters")
    return Decoded(
        EmbedRequest(
            input=TextInput((source, *texts)),
            prompt_name=parameters.string("prompt_name"),
            truncation=truncation_of(parameters),
            context=bounds.context,
            max_values=bounds.max_values,
            transit=bounds.transit,
        )
    )


def decode_predict(payload: object, bounds: Bounds) -> Decoded[ClassifyRequest]:
    """Converts a body of `/predict`; raises as `decode_embed`."""
    members = Members(payload)
    texts, single = _texts_or_pairs(members.required("inputs"), bounds)
    return Decoded(
        ClassifyRequest(
            input=TextInput(texts),
            options=ClassifyOptions(raw_scores=True),
            context=bounds.context,
            max_values=bounds.max_values,
            transit=bounds.transit,
        ),
        single=single,
        raw_scores=members.flag("raw_scores", default=False),
        truncation=truncation_of(members),
    )


def decode_tokenize(payload: object, bounds: Bounds) -> Decoded[TokenizeRequest]:
    """Converts a body of `/tokenize`; raises as `decode_embed`."""
    members = Members(payload)
    inputs = members.required("inputs")
    return Decoded(
        TokenizeRequest(
            input=TextInput((inputs,) if isinstance(inputs, str) else _strings(inputs, "inputs", bounds)),
            prompt_name=members.string("prompt_name"),
            add_special_tokens=members.flag("add_special_tokens", default=True),
            context=bounds.context,
            max_values=bounds.max_values,
            transit=bounds.transit,
        )
    )


def decode_ids(payload: object, bounds: Bounds) -> Decoded[DetokenizeRequest]:
    """Converts a body of `/decode`; raises as `decode_embed`."""
    members = Members(payload)
    ids = members.required("ids")
    if not isinstance(ids, list):
        raise MalformedRequest("ids must be a list of integers, or of such lists; got another type", field="ids")
    rows = ids if ids and all(isinstance(row, list) for row in ids) else [ids]
    if not ids:
        raise empty_inputs()
    bounds.check(rows, "ids")
    return Decoded(
        DetokenizeRequest(
            input=TokenInput(id_rows(rows, "ids")),
            skip_special_tokens=members.flag("skip_special_tokens", default=True),
            context=bounds.context,
            max_values=bounds.max_values,
            transit=bounds.transit,
        )
    )


def truncation_of(members: Members) -> Truncation | None:
    """Combines `truncate` and `truncation_direction`, in any case; None for the model's setting.

    Example:
        >>> truncation_of(Members({"truncate": True, "truncation_direction": "Left"}))
        <Truncation.LEFT: 'left'>
    """
    truncate, name = members.get("truncate"), members.string("truncation_direction") or "right"
    direction = DIRECTIONS.get(name.lower()[:8])
    if direction is None:
        raise InvalidInput("truncation_direction must be left or right; got another", field="truncation_direction")
    if truncate is None:
        return Truncation.LEFT if direction is Truncation.LEFT else None
    return direction if members.flag("truncate", default=True) else Truncation.NONE


def _texts_or_pairs(value: object, bounds: Bounds) -> tuple[tuple[TextOrPair, ...], bool]:
    """Converts a text, a pair `[a, b]`, or a batch `[[a], [a, b]]`; True for a single one."""
    if isinstance(value, str):
        return (value,), True
    if not isinstance(value, list):
        raise MalformedRequest("inputs must be a string, or a list of lists; got another type", field="inputs")
    bounds.check(value)
    if isinstance(value[0], str):
        return (_text_or_pair(value, "inputs"),), True
    return tuple(_text_or_pair(entry, f"inputs[{index}]") for index, entry in enumerate(value)), False


def _text_or_pair(value: object, field: str) -> TextOrPair:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    return text_rows([value], field)[0]


def _strings(value: object, field: str, bounds: Bounds) -> tuple[str, ...]:
    if not isinstance(value, list) or not set(map(type, value)) <= {str}:
        raise MalformedRequest(f"{field} must be a list of strings; got another type", field=field)
    bounds.check(value, field)
    return tuple(value)


def _object(value: object, field: str) -> Members:
    if not isinstance(value, dict):
        raise MalformedRequest(f"{field} must be an object; got another type", field=field)
    return Members(value)
