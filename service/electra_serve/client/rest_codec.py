"""Conversion between clients' values and the JSON of the REST API. Pure."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

import httpx
import numpy as np

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
from electra_serve.errors import ElectraServeError, TransportError, error_class
from electra_serve.tensors import Float32Array, IntArray, Output

SPAN_FIELDS: Final = frozenset(field.name for field in fields(Span))
FLOAT32: Final = np.dtype("<f4")
TRUNCATED: Final = "x-truncated-inputs"
MAX_TIMEOUT_MS: Final = 999_999_999
KNOWN: Final = frozenset(field.name for field in fields(ModelInfo)) - {
    "aliases",
    "batch_shapes",
    "embedding",
    "labels",
    "limits",
}


def headers(query: AnyQuery, timeout_s: float) -> dict[str, str]:
    """Returns the headers of a request, its time limit included."""
    return {
        "content-type": "application/json",
        "x-priority": query.priority,
        "x-request-timeout-ms": str(min(math.ceil(timeout_s * 1e3), MAX_TIMEOUT_MS)),
    }


def credentials(api_key: str | None) -> dict[str, str]:
    """Returns the header of an API key; none without a key."""
    return {} if api_key is None else {"authorization": f"Bearer {check_api_key(api_key)}"}


def body(query: Query) -> bytes:
    """Returns the body of `POST /v1/encode`."""
    return _dump(_fields(query) | {"encoding_format": "base64", "outputs": query.outputs or None})


def classify_body(query: Query, options: ClassifyOptions) -> bytes:
    """Returns the body of `POST /v1/classify`."""
    return _dump(_fields(query) | asdict(options))


def embed_body(query: EmbedQuery) -> bytes:
    """Returns the body of `POST /v1/embeddings`."""
    fields = asdict(query)
    del fields["priority"]
    return _dump(fields | {"input": fields.pop("texts"), "encoding_format": "base64"})


def rerank_body(query: RerankQuery) -> bytes:
    """Returns the body of `POST /v1/rerank`."""
    fields = asdict(query)
    del fields["priority"]
    return _dump(fields)


def _fields(query: Query) -> dict[str, object]:
    return {
        "model": query.model,
        "token_ids": _lists(query.token_ids),
        "segment_ids": _lists(query.segment_ids),
        "padding_mask": _lists(query.padding_mask),
        "text": query.texts,
        "truncate": query.truncate,
        "truncation": query.truncation,
    }


def _dump(fields: Mapping[str, object]) -> bytes:
    given = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(given, separators=(",", ":")).encode()


def to_response(response: httpx.Response) -> EncodeResponse:
    """Reads the response of `POST /v1/encode`; raises the `ServiceError` in it, or `TransportError`."""
    answer = _json(response)
    try:
        rows = {output: _arrays(answer[output.value]) for output in Output if output.value in answer}
        return EncodeResponse(
            model=answer["model"],
            tokens=answer["usage"]["tokens"],
            truncated=tuple(answer["truncated"]),
            request_id=response.headers.get("x-request-id", ""),
            sequence_output=rows.get(Output.SEQUENCE),
            pooled_output=_stacked(rows.get(Output.POOLED)),
            cls_output=_stacked(rows.get(Output.CLS)),
            mean_output=_stacked(rows.get(Output.MEAN)),
            embedding=_stacked(rows.get(Output.EMBEDDING)),
            logits=_stacked(rows.get(Output.LOGITS)),
            token_logits=rows.get(Output.TOKEN_LOGITS),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(response) from error


def to_classify_response(response: httpx.Response) -> ClassifyResponse:
    """Reads the response of `POST /v1/classify`; raises as `to_response`."""
    answer = _json(response)
    try:
        return ClassifyResponse(
            model=answer["model"],
            head=answer["head"],
            tokens=answer["usage"]["tokens"],
            truncated=tuple(answer["truncated"]),
            request_id=response.headers.get("x-request-id", ""),
            labels=_labels(answer.get("labels", ())),
            spans=_spans(answer.get("spans", ())),
            answers=_spans(answer.get("answers", ())),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _foreign(response) from error


def to_embed_response(response: httpx.Response) -> EmbedResponse:
    """Reads the response of `POST /v1/embeddings`; raises as `to_response`."""
    answer = _json(response)
    try:
        vectors = [
            np.frombuffer(base64.b64decode(item["embedding"], validate=True), FLOAT32) for item in answer["data"]
        ]
        embeddings = np.stack(vectors)  # (B, D)
        embeddings.setflags(write=False)
        return EmbedResponse(
            model=answer["model"],
            embeddings=embeddings,
            tokens=answer["usage"]["total_tokens"],
            truncated=int(response.headers[TRUNCATED]),
            request_id=response.headers.get("x-request-id", ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(response) from error


def to_rerank_response(response: httpx.Response) -> RerankResponse:
    """Reads the response of `POST /v1/rerank`; raises as `to_response`."""
    answer = _json(response)
    try:
        return RerankResponse(
            model=answer["model"],
            results=tuple(RankedDocument(item["index"], item["relevance_score"]) for item in answer["results"]),
            tokens=answer["usage"]["total_tokens"],
            truncated=int(response.headers[TRUNCATED]),
            request_id=response.headers.get("x-request-id", ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(response) from error


def to_models(response: httpx.Response) -> tuple[ModelInfo, ...]:
    """Reads the response of `GET /v1/models` without unknown fields; raises as `to_response`."""
    answer = _json(response)
    try:
        return tuple(_to_model(model) for model in answer["models"])
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(response) from error


def to_error(response: httpx.Response) -> ElectraServeError:
    """Returns the error of a response other than 200: the service's, or a `TransportError` for that of a proxy."""
    try:
        problem = response.json()
        if "error" in problem:  # on the routes of other APIs
            return _to_api_error(problem["error"], response.headers)
        return error_class(problem["code"])(
            problem["detail"],
            field=problem.get("field"),
            retry_after_s=problem.get("retry_after_s"),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return _foreign(response)


def _to_api_error(error: Mapping[str, Any], headers: Mapping[str, str]) -> ElectraServeError:
    retry_after_ms = headers.get("retry-after-ms")
    retry_after_s = None if retry_after_ms is None else int(retry_after_ms) / 1e3
    return error_class(error["code"])(error["message"], field=error["param"], retry_after_s=retry_after_s)


def _json(response: httpx.Response) -> Mapping[str, Any]:
    if response.status_code != httpx.codes.OK:
        raise to_error(response)
    try:
        answer = response.json()
    except ValueError as error:
        raise _foreign(response) from error
    if not isinstance(answer, dict):
        raise _foreign(response)
    return answer


def _foreign(response: httpx.Response) -> TransportError:
    return TransportError(f"the response must be of electra-serve's REST API; got status {response.status_code}")


def _labels(rows: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[tuple[Label, ...], ...]:
    return tuple(tuple(Label(item["label"], item["score"]) for item in row) for row in rows)


def _spans(rows: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[tuple[Span, ...], ...]:
    return tuple(tuple(_span(item) for item in row) for row in rows)


def _span(item: Mapping[str, Any]) -> Span:
    known = {name: value for name, value in item.items() if name in SPAN_FIELDS}
    return Span(**{"label": "", **known})


def _lists(rows: Sequence[IntArray] | None) -> list[list[int]] | None:
    return None if rows is None else [row.tolist() for row in rows]


def _arrays(rows: Sequence[Mapping[str, Any]]) -> tuple[Float32Array, ...]:
    return tuple(_array(row) for row in rows)


def _array(row: Mapping[str, Any]) -> Float32Array:
    if row["dtype"] != "float32":
        raise ValueError("dtype must be float32")
    return np.frombuffer(base64.b64decode(row["data"], validate=True), FLOAT32).reshape(row["shape"])


def _stacked(rows: Sequence[Float32Array] | None) -> Float32Array | None:
    if rows is None:
        return None
    stacked = np.stack(rows)  # (B, H) or (B, L)
    stacked.setflags(write=False)
    return stacked


def _to_model(model: Mapping[str, Any]) -> ModelInfo:
    known = {name: value for name, value in model.items() if name in KNOWN}
    limits, shapes, embedding = model.get("limits"), model.get("batch_shapes") or (), model.get("embedding")
    return ModelInfo(
        **known,
        limits=RequestLimits(limits["max_sequences"], limits["max_sequence_length"]) if limits else None,
        batch_shapes=tuple(ShapeCost(cost["rows"], cost["length"], cost["seconds"]) for cost in shapes),
        aliases=tuple(model.get("aliases", ())),
        labels=tuple(model.get("labels", ())),
        embedding=_to_embedding(embedding) if embedding else None,
    )


def _to_embedding(embedding: Mapping[str, Any]) -> EmbeddingConfig:
    return EmbeddingConfig(
        embedding["pooling"], embedding["normalize"], dict(embedding["prompts"]), embedding["default_prompt"]
    )
