"""Bodies of requests and responses, for the OpenAPI document and for the strict check of a request's fields.

Ids and texts have type `object` and a schema of their own: pydantic would take longer to check them than the engine to
encode them. `electra_serve.api.rest.rows` checks them at C speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, WithJsonSchema

from electra_serve.presets.heads import HeadKind
from electra_serve.serving.classification.plan import BOUNDS
from electra_serve.serving.model_info import ModelInfo
from electra_serve.tensors import Aggregation, Output, Truncation

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


_STRINGS_SCHEMA: Final = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}
_AGGREGATION_SCHEMA: Final = {"enum": [aggregation.value for aggregation in Aggregation]}


def _schema(schema: dict[str, object]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, {"type": "null"}]})


def _bounded(option: str) -> WithJsonSchema:
    least, most = BOUNDS[option]
    return _schema({"type": "integer", "minimum": least, "maximum": most})


class ModelBody(BaseModel):
    """Field of every request for a model; null is the same as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    model: str | None = None
    """Name or alias of a served model; optional if only one is served."""


class InputBody(ModelBody):
    """Fields of a request that computes; null is the same as absent."""

    token_ids: Annotated[object, _schema(_ROWS_SCHEMA)] = None
    """Sequences of ids, below the model's `vocab_size`; they may differ in length."""
    segment_ids: Annotated[object, _schema(_ROWS_SCHEMA)] = None
    """Segment of each id, below the model's `num_segments`; default 0."""
    padding_mask: Annotated[object, _schema(_ROWS_SCHEMA)] = None
    """1 for each id, or 0 for padding; default 1."""
    text: Annotated[object, _schema(_TEXT_SCHEMA)] = None
    """A text, or a list of texts and of pairs of texts, which become segments 0 and 1."""
    truncate: bool | None = False
    """Truncates sequences that are too long for the model, instead of rejecting them, by `longest_first`."""
    truncation: Annotated[object, _schema(_TRUNCATION_SCHEMA)] = None
    """Rule for sequences that are too long; default `none`, or `longest_first` if `truncate` is true.
    `right` and `left` cut that side; of a pair, the longer text first. `longest_first`, `only_first` and `only_second`
    select the text of a pair that is cut, at the tokenizer's own side. `token_ids` are one text."""


class EncodeBody(InputBody):
    """Request of `POST /v1/encode`. Exactly one of `token_ids` and `text` is required; null is the same as absent."""

    outputs: Annotated[object, _schema(_OUTPUTS_SCHEMA)] = None
    """Outputs to compute; default `sequence_output` and `pooled_output`. Only models with a head have `logits`, or
    `token_logits`."""
    encoding_format: Annotated[object, _schema(_FORMAT_SCHEMA)] = "float"
    """Numbers as JSON, or as base64 of little-endian bytes: smaller, faster, and exact."""


class ClassifyBody(InputBody):
    """Request of `POST /v1/classify`.

    Exactly one of `token_ids`, `text`, and `question` with `context` is required; null is the same as absent.
    """

    question: Annotated[object, _schema(_STRINGS_SCHEMA)] = None
    """Question, or a list of questions, for a model with a `question_answering` head. One may have many contexts."""
    context: Annotated[object, _schema(_STRINGS_SCHEMA)] = None
    """Context, or a list of contexts, that hold the answer spans. Long ones are cut into windows."""
    top_k: Annotated[int | None, _bounded("top_k")] = None
    """Most labels, or answer spans, of each sequence; default all labels, and one answer span."""
    raw_scores: bool | None = False
    """Logits instead of scores."""
    aggregation: Annotated[object, _schema(_AGGREGATION_SCHEMA)] = None
    """Rule that joins labeled tokens to spans; default `simple`. `none`: each token by itself. `simple`: tokens in a
    row with the same label, apart from its prefix `B-` or `I-`. `first`: likewise of whole words, each with the label
    of its first token."""
    stride: Annotated[int | None, _bounded("stride")] = None
    """Cuts long texts into windows that share so many ids; default 128 for contexts, and no windows for other texts."""
    max_answer_length: Annotated[int | None, _bounded("max_answer_length")] = None
    """Most ids of an answer span; default 15."""


class TokenizeBody(ModelBody):
    """Request of `POST /v1/tokenize`; null is the same as absent."""

    text: Annotated[object, WithJsonSchema(_STRINGS_SCHEMA)]
    """A text, or a list of texts. Nothing is truncated."""
    add_special_tokens: bool | None = True
    """Adds [CLS] and [SEP], as in `/v1/encode`."""


class _Response(BaseModel):
    """For the document only: responses are rendered from arrays, and may gain members."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Base64Array(_Response):
    """Array as bytes."""

    dtype: Literal["float32"]
    """Type of each number, little-endian."""
    shape: list[int]
    """Shape; the last axis varies fastest."""
    data: str
    """The bytes, in base64."""


class Usage(_Response):
    """Size of the request."""

    sequences: int
    """Sequences encoded."""
    tokens: int
    """Unmasked positions over all sequences."""


class EncodeAnswer(_Response):
    """Response of `POST /v1/encode`: the requested outputs, each with one entry per sequence."""

    model: str
    """Name of the model, even if the request has an alias."""
    sequence_output: list[list[list[float]]] | list[Base64Array] | None = None
    """Final hidden state of every position, (T, H) per sequence; zeros where masked."""
    pooled_output: list[list[float]] | list[Base64Array] | None = None
    """KerasHub's pooled output, (H,) per sequence."""
    cls_output: list[list[float]] | list[Base64Array] | None = None
    """Final hidden state of position 0, (H,) per sequence."""
    mean_output: list[list[float]] | list[Base64Array] | None = None
    """Mean of the final hidden states of the unmasked positions, (H,) per sequence."""
    embedding: list[list[float]] | list[Base64Array] | None = None
    """`cls_output` or `mean_output`, normalized or not, as `embedding` of the model's description says."""
    logits: list[list[float]] | list[Base64Array] | None = None
    """Logits of a head that labels sequences, (L,) per sequence; `labels` of the model's description names them."""
    token_logits: list[list[list[float]]] | list[Base64Array] | None = None
    """Logits of a head that labels positions, (T, L) per sequence; zeros where masked."""
    usage: Usage
    truncated: list[bool]
    """True for each sequence that was truncated."""


class LabelAnswer(_Response):
    """A label of a sequence."""

    label: str
    """Its name."""
    score: float
    """Result of the head's activation, or the logit if `raw_scores` is true."""


class SpanAnswer(_Response):
    """A labeled span of a sequence, or an answer span."""

    label: str | None = None
    """Name of the label; absent for answer spans."""
    score: float
    """Mean score of its tokens. Of answer spans, probability of the start times that of the end, or the sum of both
    logits if `raw_scores` is true."""
    start: int | None = None
    """First character; absent for `token_ids`, as are the next three."""
    end: int | None = None
    """The character after the last one."""
    text: str | None = None
    """These characters."""
    part: int | None = None
    """Text of a pair that has the span, 0 or 1; 0 for a single text."""
    token_start: int | None = None
    """First position of the ids; absent for texts."""
    token_end: int | None = None
    """The position after the last one; absent for texts."""


class ClassifyAnswer(_Response):
    """Response of `POST /v1/classify`: one list for each sequence, under the name that fits the head."""

    model: str
    """Name of the model, even if the request has an alias."""
    head: HeadKind
    """Kind of the model's head."""
    labels: list[list[LabelAnswer]] | None = None
    """Labels of each sequence, the best first; for `sequence_classification`."""
    spans: list[list[SpanAnswer]] | None = None
    """Spans of each sequence, in order, without those of label `O`; for `token_classification`. For
    `replaced_token_detection`, every token with the probability that it was replaced."""
    answers: list[list[SpanAnswer]] | None = None
    """Answer spans of each context, the best first; for `question_answering`."""
    usage: Usage
    truncated: list[bool]
    """True for each sequence that was truncated."""


class TokenAnswer(_Response):
    """A token of a text."""

    id: int
    """Its id."""
    piece: str
    """Its piece of the vocabulary, such as `##ing`; empty for an id without one."""
    special: bool
    """True for [CLS] and [SEP], which have no characters."""
    start: int | None = None
    """First character; absent for special tokens, as are the next two."""
    end: int | None = None
    """The character after the last one."""
    text: str | None = None
    """These characters."""


class TokenizeAnswer(_Response):
    """Response of `POST /v1/tokenize`."""

    model: str
    """Name of the model, even if the request has an alias."""
    tokens: list[list[TokenAnswer]]
    """Tokens of each text, in order."""
    usage: Usage


@dataclass(frozen=True, slots=True)
class ListedModel(ModelInfo):
    """Description of a model, with the members that OpenAI's clients read."""

    id: str = ""
    object: Literal["model"] = "model"
    created: int = 0  # start of the service, in seconds since 1970
    owned_by: str = "electra-serve"


class ModelsAnswer(_Response):
    """Response of `GET /v1/models`."""

    object: Literal["list"]
    data: tuple[ListedModel, ...]
    """One entry for each name and alias, as in OpenAI's API."""
    models: tuple[ListedModel, ...]
    """One entry for each model."""


class Probe(_Response):
    """Response of a successful probe."""

    status: Literal["ok"]


class Problem(_Response):
    """Reason for a failed request (RFC 9457)."""

    type: str
    """URN of the kind of problem; not a page."""
    title: str
    """Kind of problem, for people."""
    status: int
    """HTTP status."""
    detail: str
    """Valid values, then the value that was received."""
    code: str
    """Kind of problem, for programs: a slug that never changes, the same in gRPC and in metrics."""
    request_id: str
    """Id of the request in the service's log."""
    field: str | None = None
    """Invalid field, such as `token_ids[3]`."""
    retry_after_s: float | None = None
    """Seconds after which a retry is likely to succeed; `Retry-After` is the same, rounded up."""
