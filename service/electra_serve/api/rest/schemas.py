"""The bodies of requests and answers: what the OpenAPI document shows, and the strict check of a request's fields.

Ids and texts are typed `object` here, with the schema written out: checking them one by one would cost more
than computing with them. `electra_serve.api.rest.rows` does it at C speed.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, WithJsonSchema

from electra_serve.serving.model_info import ModelInfo
from electra_serve.tensors import Output, Truncation

EncodingFormat = Literal["float", "base64"]

_ROWS_SCHEMA: Final = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
}
_PAIR_SCHEMA: Final = {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "string"}}
_TEXT_SCHEMA: Final = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, _PAIR_SCHEMA]}},
    ]
}
_OUTPUTS_SCHEMA: Final = {
    "type": "array",
    "minItems": 1,
    "maxItems": len(Output),
    "items": {"enum": [output.value for output in Output]},
}
_TRUNCATION_SCHEMA: Final = {"enum": [truncation.value for truncation in Truncation]}
_FORMAT_SCHEMA: Final = {"enum": ["float", "base64"]}


def _schema(schema: dict[str, object], *, nullable: bool = True) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, {"type": "null"}]} if nullable else schema)


class EncodeBody(BaseModel):
    """What `POST /v1/encode` takes. Exactly one of `token_ids` and `text` is needed; null is the same as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    model: str | None = None
    """A served model's name or one of its aliases; may be left out where just one is served."""
    token_ids: Annotated[object, _schema(_ROWS_SCHEMA)] = None
    """Sequences of ids, below the model's `vocab_size`; they may differ in length."""
    segment_ids: Annotated[object, _schema(_ROWS_SCHEMA)] = None
    """For each id its segment, below the model's `num_segments`; default 0."""
    padding_mask: Annotated[object, _schema(_ROWS_SCHEMA)] = None
    """For each id 1, or 0 where it is padding; default 1."""
    text: Annotated[object, _schema(_TEXT_SCHEMA)] = None
    """A text, or a list of texts and of pairs of texts, which become segments 0 and 1."""
    outputs: Annotated[object, _schema(_OUTPUTS_SCHEMA)] = None
    """What to answer with; default `sequence_output` and `pooled_output`."""
    encoding_format: Annotated[object, _schema(_FORMAT_SCHEMA, nullable=False)] = "float"
    """Numbers as JSON, or as base64 of little-endian bytes: smaller, faster, and exact."""
    truncate: bool = False
    """Cut what is longer than the model takes, instead of refusing it: the same as `truncation` `longest_first`."""
    truncation: Annotated[object, _schema(_TRUNCATION_SCHEMA)] = None
    """The rule for what is longer than the model takes; default `none`, or `longest_first` if `truncate` is true.
    `right` and `left` cut that side; of a pair, the longer text first. `longest_first`, `only_first` and `only_second`
    say which text of a pair is cut, at the tokenizer's own side. `token_ids` are one text."""


class _Answer(BaseModel):
    """For the document only: answers are written from arrays, and may gain members without notice."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Base64Array(_Answer):
    """One array as bytes."""

    dtype: Literal["float32"]
    """The type of each number, little-endian."""
    shape: list[int]
    """The array's shape; the last axis varies fastest."""
    data: str
    """The bytes, in base64."""


class Usage(_Answer):
    """What the request amounted to."""

    sequences: int
    """Sequences encoded."""
    tokens: int
    """Unmasked positions over all sequences."""


class EncodeAnswer(_Answer):
    """What `POST /v1/encode` answers: of the outputs those asked for, each with one entry per sequence."""

    model: str
    """The name of the model that computed it, also if the request had one of its aliases."""
    sequence_output: list[list[list[float]]] | list[Base64Array] | None = None
    """Final hidden state of every position, (T, H) per sequence; zeros where masked."""
    pooled_output: list[list[float]] | list[Base64Array] | None = None
    """KerasHub's pooled output, (H,) per sequence."""
    cls_output: list[list[float]] | list[Base64Array] | None = None
    """Final hidden state of position 0, (H,) per sequence."""
    mean_output: list[list[float]] | list[Base64Array] | None = None
    """Mean of the final hidden states of the unmasked positions, (H,) per sequence."""
    usage: Usage
    truncated: list[bool]
    """For each sequence, whether it was cut."""


class ModelsAnswer(_Answer):
    """What `GET /v1/models` answers."""

    models: tuple[ModelInfo, ...]


class Probe(_Answer):
    """What a probe answers when all is well."""

    status: Literal["ok"]


class Problem(_Answer):
    """Why a request was not answered, after RFC 9457."""

    type: str
    """Names the kind of problem; a URN, not a page."""
    title: str
    """The kind of problem, for people."""
    status: int
    """The HTTP status."""
    detail: str
    """What is valid, then what came."""
    code: str
    """The kind of problem, for programs: a slug that never changes, the same over gRPC and in the metrics."""
    request_id: str
    """What the service's log calls this request."""
    field: str | None = None
    """The field at fault, such as `token_ids[3]`."""
    retry_after_s: float | None = None
    """Seconds after which a retry is likely to succeed; `Retry-After` is this, rounded up."""
