"""Parts of the OpenAPI document that FastAPI cannot derive: bodies, errors, headers and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from pydantic import TypeAdapter

from electra_serve.api.request_options import PRIORITY_KEY, PRIORITY_NAMES, PROXY_TIMEOUT_KEY
from electra_serve.api.rest.body import JSON_MEDIA_TYPE
from electra_serve.api.rest.headers import TIMEOUT_HEADER
from electra_serve.api.rest.middleware import REQUEST_ID_HEADER
from electra_serve.api.rest.problem_middleware import is_probe
from electra_serve.api.rest.problems import (
    PROBLEM_MEDIA_TYPE,
    PROBLEM_TYPES,
    ProblemType,
    problem_members,
)
from electra_serve.api.rest.schemas import (
    ClassifyAnswer,
    ClassifyBody,
    EncodeAnswer,
    EncodeBody,
    ListedModel,
    ModelsAnswer,
    Probe,
    Problem,
    TokenizeAnswer,
    TokenizeBody,
)
from electra_serve.api.security.authentication import API_KEY
from electra_serve.errors import DEFAULT_RETRY_AFTER_S, ServiceError, Unauthenticated

JsonObject = dict[str, Any]  # A piece of an OpenAPI document, as FastAPI takes it
Responses = dict[int | str, JsonObject]

SCHEMAS: Final = (
    EncodeBody,
    EncodeAnswer,
    ClassifyBody,
    ClassifyAnswer,
    TokenizeBody,
    TokenizeAnswer,
    ListedModel,
    ModelsAnswer,
    Probe,
    Problem,
)
_REF_TEMPLATE: Final = "#/components/schemas/{model}"
_REQUEST_ID: Final[JsonObject] = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"}
_TIMEOUT: Final[JsonObject] = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
_HEADERS: Final[JsonObject] = {
    REQUEST_ID_HEADER: {
        "description": "Id of the request in the log: the client's, or a new one.",
        "schema": _REQUEST_ID,
    }
}
_RETRY_AFTER: Final[JsonObject] = {
    "description": "Seconds after which a retry is likely to succeed.",
    "schema": {"type": "integer", "minimum": 1},
}


# Alternatives
_KEY_SCHEMES: Final[JsonObject] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key as a bearer token."},
    "api_key": {"type": "apiKey", "in": "header", "name": API_KEY},
}


class DocumentedFastAPI(FastAPI):
    """FastAPI with `schemas` in its document and, if `keyed`, API keys for every path except probes."""

    def __init__(self, *, keyed: bool, schemas: Sequence[type] = SCHEMAS, **settings: Any) -> None:
        super().__init__(**settings)
        self._keyed = keyed
        self._schemas = schemas

    def openapi(self) -> JsonObject:
        """Returns the OpenAPI document, which is built once."""
        document = super().openapi()
        if "components" not in document:
            document["components"] = {"schemas": _component_schemas(self._schemas)}
            if self._keyed:
                _ask_for_keys(document)
        return document


def compute_request(body: type, requests: JsonObject) -> JsonObject:
    """Documents the headers and the body of a `POST` that computes."""
    return {
        "parameters": [
            _header(REQUEST_ID_HEADER, "Id of the request; an invalid one is replaced.", _REQUEST_ID),
            _header(
                TIMEOUT_HEADER, "Milliseconds from the request's first byte until the client stops waiting.", _TIMEOUT
            ),
            _header(PROXY_TIMEOUT_KEY, "The same, set by Envoy; the lower one applies.", {"type": "string"}),
            _header(PRIORITY_KEY, "Order in the queue.", {"enum": list(PRIORITY_NAMES), "default": "normal"}),
        ],
        "requestBody": {
            "required": True,
            "content": {JSON_MEDIA_TYPE: {"schema": schema_of(body), "examples": requests}},
        },
    }


def json_response_of(
    description: str, schema: type, responses: JsonObject | None = None, *, status: int = 200
) -> Responses:
    """Documents a JSON response that follows `schema`."""
    content = {"schema": schema_of(schema)} | ({"examples": responses} if responses else {})
    return {status: {"description": description, "headers": _HEADERS, "content": {JSON_MEDIA_TYPE: content}}}


def text_response_of(description: str) -> Responses:
    """Documents a plain-text response."""
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {200: {"description": description, "headers": _HEADERS, "content": content}}


def problems(*classes: type[ServiceError]) -> Responses:
    """Documents the responses of these errors, and of any other."""
    responses: Responses = {}
    for status in sorted({PROBLEM_TYPES[cls].status for cls in classes}):
        kinds = {cls: PROBLEM_TYPES[cls] for cls in classes if PROBLEM_TYPES[cls].status == status}
        responses[status] = _problem_response(kinds)
    return responses | {"default": _problem_response({})}


def _ask_for_keys(document: JsonObject) -> None:
    document["components"]["securitySchemes"] = _KEY_SCHEMES
    rejection = problems(Unauthenticated)[PROBLEM_TYPES[Unauthenticated].status]
    for path, item in document["paths"].items():
        for operation in item.values() if not is_probe(path) else ():
            operation["security"] = [{scheme: []} for scheme in _KEY_SCHEMES]
            responses = operation["responses"]
            own_form = PROBLEM_MEDIA_TYPE in responses["default"]["content"]
            responses[str(PROBLEM_TYPES[Unauthenticated].status)] = rejection if own_form else responses["default"]


def _problem_response(kinds: Mapping[type[ServiceError], ProblemType]) -> JsonObject:
    description = " or ".join(kind.title for kind in kinds.values()) or "Any other problem"
    retry = any(cls.retryable for cls in kinds)
    content: JsonObject = {"schema": schema_of(Problem)}
    if kinds:
        content["examples"] = {cls.code: {"value": _problem_example(cls, kind)} for cls, kind in kinds.items()}
    return {
        "description": f"{description}.",
        "headers": _HEADERS | ({"retry-after": _RETRY_AFTER} if retry else {}),
        "content": {PROBLEM_MEDIA_TYPE: content},
    }


def _problem_example(cls: type[ServiceError], kind: ProblemType) -> JsonObject:
    detail = (cls.__doc__ or "").partition("\n")[0]
    retry_after_s = DEFAULT_RETRY_AFTER_S if cls.retryable else None
    return problem_members(kind.status, kind.title, detail, cls.code, "order-7", retry_after_s=retry_after_s)


def _header(name: str, description: str, schema: JsonObject) -> JsonObject:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def schema_of(schema: type) -> JsonObject:
    """Returns a reference to a schema of the document."""
    return {"$ref": _REF_TEMPLATE.format(model=schema.__name__)}


def _component_schemas(schemas: Sequence[type]) -> JsonObject:
    _, document = TypeAdapter.json_schemas(
        [(schema.__name__, "serialization", TypeAdapter(schema)) for schema in schemas], ref_template=_REF_TEMPLATE
    )
    components: JsonObject = document["$defs"]
    return components
