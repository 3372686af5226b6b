"""Bodies of `POST /v1/embeddings`, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, WithJsonSchema

_STRINGS: Final = {"type": "array", "minItems": 1, "items": {"type": "string"}}
_IDS: Final = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_INPUT_SCHEMA: Final = {"anyOf": [{"type": "string"}, _STRINGS, _IDS, {"type": "array", "minItems": 1, "items": _IDS}]}


class EmbeddingsBody(BaseModel):
    """Request of `POST /v1/embeddings`. Unknown members are ignored, and null is the same as absent."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    input: Annotated[object, WithJsonSchema(_INPUT_SCHEMA)]
    """A text or a list of texts. Ids only if the model's settings allow them."""
    model: str | None = None
    """Name or alias of a served model; optional if only one is served."""
    encoding_format: Literal["float", "base64"] | None = None
    """Numbers as JSON, or as base64 of little-endian float32; default `float`."""
    dimensions: Annotated[int | None, WithJsonSchema({"type": ["integer", "null"], "minimum": 1})] = None
    """Length of the vectors: that of the model, unless its settings allow others."""
    prompt_name: str | None = None
    """Name of one of the model's prompts, which precedes each text."""
    input_type: str | None = None
    """`query` or `document`, by the names of several servers: selects a prompt if the model has one."""
    user: Annotated[Any, WithJsonSchema({})] = None
    """Ignored."""


class EmbeddingItem(BaseModel):
    """One vector."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    object: Literal["embedding"]
    index: int
    """Index of the input."""
    embedding: list[float] | str
    """Unit vector, as numbers or as base64."""


class EmbeddingUsage(BaseModel):
    """Size of the request."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """Response of `POST /v1/embeddings`."""

    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage


class OpenAIError(BaseModel):
    """Reason for a failed request."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    message: str
    type: Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
    param: str | None
    """Member at fault."""
    code: str
    """Kind of problem, the same as in other APIs of the service."""


class OpenAIErrorAnswer(BaseModel):
    """Response of a failed request."""

    error: OpenAIError
