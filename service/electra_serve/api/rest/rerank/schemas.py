"""Bodies of the rerank APIs, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, WithJsonSchema

from electra_serve.api.rest.openai.schemas import EmbeddingUsage, OpenAIError

_STRINGS: Final = {"type": "array", "minItems": 1, "items": {"type": "string"}}
_DOCUMENT: Final = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
    ]
}
_DOCUMENTS: Final = {"type": "array", "minItems": 1, "items": _DOCUMENT}
_TEXTS: Final = {"anyOf": [{"type": "string"}, _STRINGS]}
_IGNORING: Final = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class RerankBody(BaseModel):
    """Request of the rerank routes. Unknown members are ignored, and null is the same as absent."""

    model_config = _IGNORING

    query: str
    documents: Annotated[object, WithJsonSchema(_DOCUMENTS)]
    """Strings, or objects with a `text`."""
    model: str | None = None
    """Name or alias of a served cross-encoder; optional if only one model is served."""
    top_n: Annotated[int | None, WithJsonSchema({"type": ["integer", "null"], "minimum": 1})] = None
    """Most documents in the response, the best ones; default all."""
    return_documents: bool | None = None
    """Repeats the documents in the response; default false."""
    raw_scores: bool | None = None
    """Logits instead of their sigmoid; default false."""


class TeiRerankBody(BaseModel):
    """Request of `POST /rerank` as Text Embeddings Inference has it, whose response is a list."""

    model_config = _IGNORING

    query: str
    texts: Annotated[list[str], WithJsonSchema(_STRINGS)]
    raw_scores: bool | None = None
    """Logits instead of their sigmoid; default false."""
    return_text: bool | None = None
    """Repeats the texts in the response; default false."""
    truncate: bool | None = None
    """False rejects pairs that are too long; default true."""
    truncation_direction: str | None = None
    """`right`, the default, cuts the end of texts. `left` cuts the beginning of the longer one of a pair."""


class ScoreBody(BaseModel):
    """Request of `POST /score`. Unknown members are ignored, and null is the same as absent."""

    model_config = _IGNORING

    text_1: Annotated[object, WithJsonSchema(_TEXTS)]
    """One text for every `text_2`, or one for each."""
    text_2: Annotated[object, WithJsonSchema(_TEXTS)]
    model: str | None = None
    """Name or alias of a served cross-encoder; optional if only one model is served."""
    raw_scores: bool | None = None
    """Logits instead of their sigmoid; default false."""


class RerankDocument(BaseModel):
    """A document of the request."""

    text: str


class RerankItem(BaseModel):
    """A document with its score."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    index: int
    """Index of the document in the request."""
    relevance_score: float
    """From 0 to 1, unless logits are requested."""
    document: RerankDocument | None = None
    """The document, if requested."""


class ApiVersion(BaseModel):
    """Version of Cohere's API."""

    version: Literal["1", "2"]


class BilledUnits(BaseModel):
    """Member that Cohere's clients expect."""

    search_units: Literal[1]


class RerankMeta(BaseModel):
    """Members that Cohere's clients expect."""

    api_version: ApiVersion
    billed_units: BilledUnits


class RerankAnswer(BaseModel):
    """Response of the rerank routes; `results` has the best document first."""

    id: str
    model: str
    results: list[RerankItem]
    meta: RerankMeta
    usage: EmbeddingUsage


class TeiRerankItem(BaseModel):
    """A text with its score."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    index: int
    score: float
    text: str | None = None
    """The text, if requested."""


class ScoreItem(BaseModel):
    """The score of a pair."""

    index: int
    object: Literal["score"]
    score: float


class ScoreAnswer(BaseModel):
    """Response of `POST /score`, in the order of the request."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ScoreItem]
    usage: EmbeddingUsage


class RerankErrorAnswer(BaseModel):
    """Response of a failed request."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    message: str
    detail: str
    """The same text."""
    error: OpenAIError
