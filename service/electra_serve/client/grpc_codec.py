"""Conversion between clients' values and the messages of electra.v1. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Final, TypeVar

import grpc

from electra_serve.client.request import AnyQuery, ClassifyOptions, EmbedQuery, Query, RerankQuery, check_api_key
from electra_serve.client.response import (
    ClassifyResponse,
    EmbeddingConfig,
    EmbedResponse,
    EncodeResponse,
    Label,
    ModelInfo,
    RankedDocument,
    RequestLimits,
    RerankResponse,
    ShapeCost,
    Span,
)
from electra_serve.errors import (
    DeadlineExceeded,
    ElectraServeError,
    PayloadTooLarge,
    ServiceError,
    TransportError,
    error_class,
)
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers, to_floats
from electra_serve.tensors import Aggregation, IntArray, Output, Truncation

OUTPUTS: Final[Mapping[Output, pb.Output.ValueType]] = MappingProxyType(
    {
        Output.SEQUENCE: pb.OUTPUT_SEQUENCE,
        Output.POOLED: pb.OUTPUT_POOLED,
        Output.CLS: pb.OUTPUT_CLS,
        Output.MEAN: pb.OUTPUT_MEAN,
        Output.EMBEDDING: pb.OUTPUT_EMBEDDING,
        Output.LOGITS: pb.OUTPUT_LOGITS,
        Output.TOKEN_LOGITS: pb.OUTPUT_TOKEN_LOGITS,
    }
)
TRUNCATIONS: Final[Mapping[Truncation | None, pb.Truncation.ValueType]] = MappingProxyType(
    {
        None: pb.TRUNCATION_UNSPECIFIED,
        Truncation.NONE: pb.TRUNCATION_NONE,
        Truncation.RIGHT: pb.TRUNCATION_RIGHT,
        Truncation.LEFT: pb.TRUNCATION_LEFT,
        Truncation.LONGEST_FIRST: pb.TRUNCATION_LONGEST_FIRST,
        Truncation.ONLY_FIRST: pb.TRUNCATION_ONLY_FIRST,
        Truncation.ONLY_SECOND: pb.TRUNCATION_ONLY_SECOND,
    }
)
AGGREGATIONS: Final[Mapping[Aggregation | None, pb.Aggregation.ValueType]] = MappingProxyType(
    {
        None: pb.AGGREGATION_UNSPECIFIED,
        Aggregation.NONE: pb.AGGREGATION_NONE,
        Aggregation.FIRST: pb.AGGREGATION_FIRST,
        Aggregation.SIMPLE: pb.AGGREGATION_SIMPLE,
    }
)
OPTIONAL: Final = ("start", "end", "text", "part", "token_start", "token_end")
T = TypeVar("T")
CODE_KEY: Final = "electra-error-code"
FIELD_KEY: Final = "electra-error-field"
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
BY_STATUS: Final[Mapping[grpc.StatusCode, type[ServiceError]]] = MappingProxyType(
    {
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
        grpc.StatusCode.RESOURCE_EXHAUSTED: PayloadTooLarge,
    }
)
"""Errors that gRPC itself reports. CANCELLED is not one: it means that the server closed its connections, since a
client's own cancellation raises no error."""


SCALARS: Final = frozenset(field.name for field in fields(ModelInfo)) - {
    "aliases",
    "state",
    "weights",
    "config",
    "limits",
    "batch_shapes",
    "embedding",
    "labels",
    "pooler",
}


def to_request(query: Query) -> pb.EncodeRequest:
    """Returns the message of a request."""
    request = pb.EncodeRequest(
        model=query.model or "",
        outputs=[OUTPUTS[output] for output in query.outputs],
        truncate=query.truncate,
        truncation=TRUNCATIONS[query.truncation],
    )
    _set_input(request, query)
    return request


def to_classify_request(query: Query, options: ClassifyOptions) -> pb.ClassifyRequest:
    """Returns the message of a request to classify."""
    request = pb.ClassifyRequest(
        model=query.model or "",
        top_k=options.top_k,
        raw_scores=options.raw_scores,
        aggregation=AGGREGATIONS[options.aggregation],
        stride=options.stride,
        max_answer_length=options.max_answer_length,
        truncate=query.truncate,
        truncation=TRUNCATIONS[query.truncation],
    )
    _set_input(request, query)
    return request


def to_embed_request(query: EmbedQuery) -> pb.EmbedRequest:
    """Returns the message of a request to embed."""
    return pb.EmbedRequest(
        model=query.model or "",
        text=pb.TextInput(texts=[pb.Text(first=text) for text in query.texts]),
        prompt_name=query.prompt_name,
        input_type=query.input_type,
        dimensions=query.dimensions,
    )


def to_rerank_request(query: RerankQuery) -> pb.RerankRequest:
    """Returns the message of a request to rerank."""
    return pb.RerankRequest(
        model=query.model or "",
        query=query.query,
        documents=query.documents,
        top_n=query.top_n,
        raw_scores=query.raw_scores,
    )


def _set_input(request: pb.EncodeRequest | pb.ClassifyRequest, query: Query) -> None:
    if query.texts is not None:
        request.text.texts.extend(_to_text(text) for text in query.texts)
        request.text.SetInParent()
    else:
        request.tokens.CopyFrom(
            pb.TokenInput(
                token_ids=_tensors(query.token_ids),
                segment_ids=_tensors(query.segment_ids),
                padding_mask=_tensors(query.padding_mask),
            )
        )


def to_metadata(query: AnyQuery) -> tuple[tuple[str, str], ...]:
    """Returns the metadata of a request; the time limit is the call's own deadline."""
    return (("x-priority", query.priority),)


def credentials(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """Returns the metadata of an API key; none without a key."""
    return () if api_key is None else (("authorization", f"Bearer {check_api_key(api_key)}"),)


def to_response(response: pb.EncodeResponse) -> EncodeResponse:
    """Reads a response; raises `TransportError` if a tensor does not match its shape."""
    try:
        return EncodeResponse(
            model=response.model,
            tokens=response.usage.tokens,
            truncated=tuple(response.truncated),
            request_id=response.request_id,
            sequence_output=tuple(to_floats(tensor) for tensor in response.sequence_output) or None,
            pooled_output=to_floats(response.pooled_output) if response.HasField("pooled_output") else None,
            cls_output=to_floats(response.cls_output) if response.HasField("cls_output") else None,
            mean_output=to_floats(response.mean_output) if response.HasField("mean_output") else None,
            embedding=to_floats(response.embedding) if response.HasField("embedding") else None,
            logits=to_floats(response.logits) if response.HasField("logits") else None,
            token_logits=tuple(to_floats(tensor) for tensor in response.token_logits) or None,
        )
    except ValueError as error:
        raise TransportError(f"cannot read the response: {error}") from error


def to_classify_response(response: pb.ClassifyResponse) -> ClassifyResponse:
    """Reads the response to a request to classify."""
    results = response.results
    return ClassifyResponse(
        model=response.model,
        head=response.head,
        tokens=response.usage.tokens,
        truncated=tuple(response.truncated),
        request_id=response.request_id,
        labels=_rows(response.head, "sequence_classification", [_to_labels(row) for row in results]),
        spans=_rows(response.head, "token_classification", [_to_spans(row.spans) for row in results])
        or _rows(response.head, "replaced_token_detection", [_to_spans(row.spans) for row in results]),
        answers=_rows(response.head, "question_answering", [_to_spans(row.answers) for row in results]),
    )


def to_embed_response(response: pb.EmbedResponse) -> EmbedResponse:
    """Reads the response to a request to embed; raises as `to_response`."""
    try:
        return EmbedResponse(
            model=response.model,
            embeddings=to_floats(response.embeddings),
            tokens=response.usage.tokens,
            truncated=sum(response.truncated),
            request_id=response.request_id,
        )
    except ValueError as error:
        raise TransportError(f"cannot read the response: {error}") from error


def to_rerank_response(response: pb.RerankResponse) -> RerankResponse:
    """Reads the response to a request to rerank."""
    return RerankResponse(
        model=response.model,
        results=tuple(RankedDocument(item.index, item.score) for item in response.results),
        tokens=response.usage.tokens,
        truncated=sum(response.truncated),
        request_id=response.request_id,
    )


def to_model(info: pb.ModelInfo) -> ModelInfo:
    """Reads the description of a model."""
    scalars = {field.name: value for field, value in info.ListFields() if field.name in SCALARS}
    return ModelInfo(
        **scalars,
        state=_slug(pb.ModelState.Name(info.state), "MODEL_STATE_"),
        weights=_weights_origin(info.weights),
        config=_to_config(info.config) if info.HasField("config") else None,
        limits=_to_limits(info.limits) if info.HasField("limits") else None,
        batch_shapes=tuple(ShapeCost(cost.rows, cost.length, cost.seconds) for cost in info.batch_shapes),
        pooler=_weights_origin(info.pooler),
        aliases=tuple(info.aliases),
        labels=tuple(info.labels),
        embedding=_to_embedding(info.embedding) if info.HasField("embedding") else None,
    )


def to_error(status: grpc.StatusCode, details: str | None, metadata: Mapping[str, str | bytes]) -> ElectraServeError:
    """Returns the error of a failed call: the service's by its code, or gRPC's by its status."""
    text = details or ""
    code, field, pushback_ms = (_text_of(metadata, key) for key in (CODE_KEY, FIELD_KEY, PUSHBACK_KEY))
    if code is not None:
        retry_after_s = None if pushback_ms is None else int(pushback_ms) / 1e3
        return error_class(code)(text, field=field, retry_after_s=retry_after_s)
    if status in BY_STATUS:
        return BY_STATUS[status](text)
    return TransportError(f"cannot reach the server over gRPC: {status.name}: {text}")


def _rows(head: str, kind: str, rows: Sequence[T]) -> tuple[T, ...]:
    return tuple(rows) if head == kind else ()


def _to_labels(row: pb.Classification) -> tuple[Label, ...]:
    return tuple(Label(item.label, item.score) for item in row.labels)


def _to_spans(spans: Iterable[pb.Span]) -> tuple[Span, ...]:
    return tuple(_to_span(span) for span in spans)


def _to_span(span: pb.Span) -> Span:
    given = {name: getattr(span, name) for name in OPTIONAL if span.HasField(name)}
    return Span(span.label, span.score, **given)


def _text_of(metadata: Mapping[str, str | bytes], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) else None


def _to_text(text: str | tuple[str, str]) -> pb.Text:
    return pb.Text(first=text) if isinstance(text, str) else pb.Text(first=text[0], second=text[1])


def _tensors(rows: Sequence[IntArray] | None) -> list[pb.Tensor]:
    return [from_integers(row) for row in rows or ()]


def _to_config(config: pb.BackboneConfig) -> dict[str, float | str]:
    return {field.name: getattr(config, field.name) for field in config.DESCRIPTOR.fields}


def _to_limits(limits: pb.ModelLimits) -> RequestLimits:
    return RequestLimits(limits.max_sequences, limits.max_sequence_length)


def _to_embedding(embedding: pb.EmbeddingConfig) -> EmbeddingConfig:
    return EmbeddingConfig(embedding.pooling, embedding.normalize, dict(embedding.prompts), embedding.default_prompt)


def _weights_origin(weights: pb.Weights.ValueType) -> str | None:
    return _slug(pb.Weights.Name(weights), "WEIGHTS_") if weights else None


def _slug(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
