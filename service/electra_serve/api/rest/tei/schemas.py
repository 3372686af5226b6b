"""Bodies of Text Embeddings Inference's routes, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, RootModel, WithJsonSchema

from electra_serve.api.rest.tei.errors import ErrorType

_STRING: Final = {"type": "string"}
_STRINGS: Final = {"type": "array", "minItems": 1, "items": _STRING}
_IDS: Final = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_ID_LISTS: Final = {"type": "array", "minItems": 1, "items": _IDS}
_ONE_OR_TWO: Final = {"type": "array", "minItems": 1, "maxItems": 2, "items": _STRING}
_BATCH: Final = {"type": "array", "minItems": 1, "items": _ONE_OR_TWO}

_Direction = Annotated[str | None, WithJsonSchema({"anyOf": [{"enum": ["left", "right"]}, {"type": "null"}]})]


class _Body(BaseModel):
    """Request. Unknown members are ignored, and null is the same as absent."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class _Truncated(_Body):
    """Request whose inputs may be truncated."""

    truncate: bool | None = None
    """Truncate long inputs; default: as the model's settings say, which is true."""
    truncation_direction: _Direction = None
    """Side that is cut, in any case; default `right`."""


class TeiEmbedAllBody(_Truncated):
    """Request of `POST /embed_all`."""

    inputs: Annotated[object, WithJsonSchema({"anyOf": [_STRING, _STRINGS, _IDS, _ID_LISTS]})]
    """A text or a list of texts. Ids only if the model's settings allow them."""
    prompt_name: str | None = None
    """Name of one of the model's prompts, which precedes each text."""


class TeiEmbedBody(TeiEmbedAllBody):
    """Request of `POST /embed`."""

    normalize: bool | None = True
    """Scale vectors to unit length."""
    dimensions: Annotated[int | None, WithJsonSchema({"type": ["integer", "null"], "minimum": 1})] = None
    """Length of the vectors: that of the model, unless its settings allow others."""


class TeiVectors(RootModel[list[list[float]]]):
    """Vector of each input."""


class TeiTokenVectors(RootModel[list[list[list[float]]]]):
    """Vectors of the tokens of each input."""


class TeiPredictBody(_Truncated):
    """Request of `POST /predict`."""

    inputs: Annotated[object, WithJsonSchema({"anyOf": [_STRING, _ONE_OR_TWO, _BATCH]})]
    """A text, a pair of texts, or a batch: a list of lists of one or two texts."""
    raw_scores: bool | None = False
    """Logits instead of scores."""


class TeiPrediction(BaseModel):
    """A label of an input."""

    score: float
    label: str


class TeiPredictions(RootModel[list[TeiPrediction] | list[list[TeiPrediction]]]):
    """Labels, the best first; a list of them for each input of a batch."""


class TeiSimilarityInputs(BaseModel):
    """Texts to compare."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    source_sentence: str
    """Text that the others are compared with."""
    sentences: Annotated[list[str], WithJsonSchema(_STRINGS)]
    """The other texts."""


class TeiSimilarityParameters(_Truncated):
    """Options of `POST /similarity`."""

    prompt_name: str | None = None
    """Name of one of the model's prompts, which precedes each text."""


class TeiSimilarityBody(_Body):
    """Request of `POST /similarity`."""

    inputs: TeiSimilarityInputs
    parameters: TeiSimilarityParameters | None = None


class TeiSimilarities(RootModel[list[float]]):
    """Cosine of the source and each other text."""


class TeiTokenizeBody(_Body):
    """Request of `POST /tokenize`."""

    inputs: Annotated[object, WithJsonSchema({"anyOf": [_STRING, _STRINGS]})]
    """A text or a list of texts."""
    add_special_tokens: bool | None = True
    """Add tokens such as [CLS] and [SEP]."""
    prompt_name: str | None = None
    """Name of one of the model's prompts, which precedes each text."""


class TeiToken(BaseModel):
    """A token."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: int
    text: str
    """Its part of the text, or the special token."""
    special: bool
    start: int | None
    """First byte in the UTF-8 of the text; null for a special token."""
    stop: int | None
    """The byte after the last one; null for a special token."""


class TeiTokens(RootModel[list[list[TeiToken]]]):
    """Tokens of each text."""


class TeiDecodeBody(_Body):
    """Request of `POST /decode`."""

    ids: Annotated[object, WithJsonSchema({"anyOf": [_IDS, _ID_LISTS]})]
    """A list of ids, or a list of those."""
    skip_special_tokens: bool | None = True
    """Leave out tokens such as [CLS] and [SEP]."""


class TeiTexts(RootModel[list[str]]):
    """Text of each list of ids."""


class TeiPooling(BaseModel):
    """An encoder."""

    pooling: str


class TeiLabels(BaseModel):
    """A classifier."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class TeiInfo(BaseModel):
    """Response of `GET /info`."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), use_attribute_docstrings=True)

    model_id: str
    """Preset of the model."""
    model_sha: str | None
    """Digest of its files."""
    model_dtype: str
    served_model_name: str
    model_type: dict[str, TeiPooling | TeiLabels]
    """`embedding`, `classifier` or, with one label, `reranker`."""
    max_concurrent_requests: int
    """Most connections."""
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    """Most inputs of a request."""
    auto_truncate: bool
    """True if long inputs are truncated by default."""
    tokenization_workers: int
    version: str
    """Version of this service."""
    sha: str | None
    docker_label: str | None


class TeiErrorAnswer(BaseModel):
    """Response of a failed request."""

    error: str
    error_type: ErrorType
