"""Bodies of the protocol's routes, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, WithJsonSchema

_VALUE: Final = {"type": ["string", "number", "boolean"]}
_ROW: Final = {"type": "array", "items": _VALUE}
_DATA: Final = {"type": "array", "items": {"anyOf": [_VALUE, _ROW]}}
_SHAPE: Final = {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer", "minimum": 0}}

Parameters = Annotated[dict[str, object] | None, WithJsonSchema({"type": ["object", "null"]})]


class _Body(BaseModel):
    """Request. Unknown members and parameters are ignored, and null is the same as absent."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class _Answer(BaseModel):
    """Response; later versions may add members."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


class OipInput(_Body):
    """An input tensor; with `binary_data_size` its elements follow the JSON, else they are in `data`."""

    name: str
    """`token_ids` or `input_ids`, `segment_ids` or `token_type_ids`, `padding_mask` or `attention_mask`; or `text`."""
    shape: Annotated[list[int], WithJsonSchema(_SHAPE)]
    """`[B, S]` or `[S]` of ids; `[B]`, `[B, 1]` or, for pairs, `[B, 2]` of texts."""
    datatype: str
    """Any integer type or `BOOL`; `BYTES` for texts."""
    parameters: Parameters = None
    """`binary_data_size`: bytes of the tensor after the JSON."""
    data: Annotated[list[object] | None, WithJsonSchema({"anyOf": [_DATA, {"type": "null"}]})] = None
    """Elements, flat or nested as the shape."""


class OipRequestedOutput(_Body):
    """An output tensor to return."""

    name: str
    parameters: Parameters = None
    """`binary_data`: true to get it as bytes after the JSON."""


class OipInferBody(_Body):
    """Request of `POST /v2/models/{name}/infer`."""

    id: Annotated[str | None, Field(max_length=1024)] = None
    """Text that the response repeats."""
    parameters: Parameters = None
    """`priority` (1 is high, 2 normal), `timeout` in microseconds, `truncate`, `binary_data_output`."""
    inputs: list[OipInput]
    outputs: list[OipRequestedOutput] | None = None
    """Default: all outputs of the model."""


class OipOutput(_Answer):
    """An output tensor."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = None
    """`binary_data_size`, if its bytes follow the JSON."""
    data: list[float] | None = None
    """Elements in C order."""


class OipInferAnswer(_Answer):
    """Response of `POST /v2/models/{name}/infer`."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OipOutput]


class OipServer(_Answer):
    """Response of `GET /v2`."""

    name: str
    version: str
    extensions: list[str]


class OipLive(_Answer):
    """Response of `GET /v2/health/live`."""

    live: Literal[True]


class OipReady(_Answer):
    """Response of `GET /v2/health/ready`."""

    ready: bool
    error: str | None = None


class OipModelReady(OipReady):
    """Response of `GET /v2/models/{name}/ready`."""

    name: str


class OipModels(_Answer):
    """Response of `GET /v2/models`."""

    models: list[str]


class OipTensor(_Answer):
    """Name, datatype and shape of a tensor; requests choose axes of −1."""

    name: str
    datatype: str
    shape: list[int]


class OipModel(_Answer):
    """Response of `GET /v2/models/{name}`."""

    name: str
    versions: list[str]
    platform: str
    properties: dict[str, str]
    """Limits of the model."""
    inputs: list[OipTensor]
    outputs: list[OipTensor]


class OipConfigTensor(_Answer):
    """Name, type and shape of a tensor without the axis of the batch."""

    name: str
    data_type: str
    dims: list[int]
    optional: bool | None = None
    reshape: dict[str, list[int]] | None = None


class OipConfig(_Answer):
    """Response of `GET /v2/models/{name}/config`."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[OipConfigTensor]
    output: list[OipConfigTensor]
    dynamic_batching: dict[str, object]


class OipDuration(_Answer):
    """Number of events, and their total time in nanoseconds."""

    count: int
    ns: int


class OipInferenceStatistics(_Answer):
    """Times since the model was loaded. `success` includes the time of failed requests."""

    success: OipDuration
    fail: OipDuration
    queue: OipDuration
    compute_input: OipDuration
    compute_infer: OipDuration
    compute_output: OipDuration
    cache_hit: OipDuration
    cache_miss: OipDuration


class OipModelStatistics(_Answer):
    """Statistics of a model, of all transports."""

    name: str
    version: str
    inference_count: int
    """Sequences."""
    execution_count: int
    """Batches."""
    inference_stats: OipInferenceStatistics
    batch_stats: list[object]


class OipStatistics(_Answer):
    """Response of `GET /v2/models/stats` and `GET /v2/models/{name}/stats`."""

    model_stats: list[OipModelStatistics]


class OipIndexBody(_Body):
    """Request of `POST /v2/repository/index`."""

    ready: bool | None = None
    """True for ready models only."""


class OipIndexEntry(_Answer):
    """A model and its state."""

    name: str
    version: str
    state: str
    reason: str


class OipIndex(RootModel[list[OipIndexEntry]]):
    """Response of `POST /v2/repository/index`."""


class OipErrorAnswer(_Answer):
    """Response of a failed request."""

    error: str
    code: str | None = None
    """Stable identifier of the error."""
    request_id: str | None = None
    """Id of the request in the log."""
    field: str | None = None
    """Field at fault, as the request spells it."""
    retry_after_s: float | None = None
