"""What the OpenAPI document says beyond what FastAPI can see: bodies read by hand, errors, headers, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from pydantic import TypeAdapter

from electra_serve.api.request_options import PRIORITY_KEY, PRIORITY_NAMES, PROXY_TIMEOUT_KEY
from electra_serve.api.rest import examples
from electra_serve.api.rest.body import JSON_MEDIA_TYPE
from electra_serve.api.rest.headers import TIMEOUT_HEADER
from electra_serve.api.rest.middleware import REQUEST_ID_HEADER
from electra_serve.api.rest.problems import (
    DEFAULT_RETRY_AFTER_S,
    PROBLEM_MEDIA_TYPE,
    PROBLEM_TYPES,
    ProblemType,
    problem_members,
)
from electra_serve.api.rest.schemas import EncodeAnswer, EncodeBody, ModelsAnswer, Probe, Problem
from electra_serve.api.security.authentication import API_KEY
from electra_serve.errors import ServiceError, Unauthenticated
from electra_serve.serving.model_info import ModelInfo

JsonObject = dict[str, Any]
"""A piece of an OpenAPI document, as FastAPI takes it."""
Responses = dict[int | str, JsonObject]

SCHEMAS: Final = (EncodeBody, EncodeAnswer, ModelInfo, ModelsAnswer, Probe, Problem)
_REF_TEMPLATE: Final = "#/components/schemas/{model}"
_REQUEST_ID: Final[JsonObject] = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"}
_TIMEOUT: Final[JsonObject] = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
_HEADERS: Final[JsonObject] = {
    REQUEST_ID_HEADER: {"description": "Names the request in the log: yours, or a new one.", "schema": _REQUEST_ID}
}
_RETRY_AFTER: Final[JsonObject] = {
    "description": "Seconds after which a retry is likely to succeed.",
    "schema": {"type": "integer", "minimum": 1},
}


_KEY_SCHEMES: Final[JsonObject] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key as a bearer token."},
    "api_key": {"type": "apiKey", "in": "header", "name": API_KEY},
}
"""Either will do."""


class DocumentedFastAPI(FastAPI):
    """FastAPI, with the schemas that the routes' documentation refers to.

    Args:
        keyed: Whether everything under a `/v1` asks for an API key.
        schemas: What its documentation refers to.
        settings: FastAPI's own.
    """

    def __init__(self, *, keyed: bool, schemas: Sequence[type] = SCHEMAS, **settings: Any) -> None:
        super().__init__(**settings)
        self._keyed = keyed
        self._schemas = schemas

    def openapi(self) -> JsonObject:
        """The OpenAPI document; made once."""
        document = super().openapi()
        if "components" not in document:
            document["components"] = {"schemas": _component_schemas(self._schemas)}
            if self._keyed:
                _ask_for_keys(document)
        return document


def encode_request() -> JsonObject:
    """Documents the headers and the body that `POST /v1/encode` takes."""
    return {
        "parameters": [
            _header(
                REQUEST_ID_HEADER, "Your name for the request; another is made up where it does not fit.", _REQUEST_ID
            ),
            _header(
                TIMEOUT_HEADER, "Milliseconds from the request's first byte until its answer is of no use.", _TIMEOUT
            ),
            _header(PROXY_TIMEOUT_KEY, "The same, as Envoy says it; the lesser holds.", {"type": "string"}),
            _header(PRIORITY_KEY, "Which requests go first.", {"enum": list(PRIORITY_NAMES), "default": "normal"}),
        ],
        "requestBody": {
            "required": True,
            "content": {JSON_MEDIA_TYPE: {"schema": schema_of(EncodeBody), "examples": examples.REQUESTS}},
        },
    }


def json_answer(description: str, schema: type, answers: JsonObject | None = None, *, status: int = 200) -> Responses:
    """Documents an answer whose JSON follows `schema`."""
    content = {"schema": schema_of(schema)} | ({"examples": answers} if answers else {})
    return {status: {"description": description, "headers": _HEADERS, "content": {JSON_MEDIA_TYPE: content}}}


def text_answer(description: str) -> Responses:
    """Documents a 200 of plain text."""
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {200: {"description": description, "headers": _HEADERS, "content": content}}


def problems(*classes: type[ServiceError]) -> Responses:
    """Documents the answer to each of these errors, and to any other."""
    responses: Responses = {}
    for status in sorted({PROBLEM_TYPES[cls].status for cls in classes}):
        kinds = {cls: PROBLEM_TYPES[cls] for cls in classes if PROBLEM_TYPES[cls].status == status}
        responses[status] = _problem_response(kinds)
    return responses | {"default": _problem_response({})}


def _ask_for_keys(document: JsonObject) -> None:
    document["components"]["securitySchemes"] = _KEY_SCHEMES
    rejection = problems(Unauthenticated)[PROBLEM_TYPES[Unauthenticated].status]
    for path, item in document["paths"].items():
        for operation in item.values() if "/v1/" in path else ():
            operation["security"] = [{scheme: []} for scheme in _KEY_SCHEMES]
            operation["responses"][str(PROBLEM_TYPES[Unauthenticated].status)] = rejection


def _problem_response(kinds: Mapping[type[ServiceError], ProblemType]) -> JsonObject:
    description = " or ".join(kind.title for kind in kinds.values()) or "Any other problem"
    retry = any(kind.retry for kind in kinds.values())
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
    retry_after_s = DEFAULT_RETRY_AFTER_S if kind.retry else None
    return problem_members(kind.status, kind.title, detail, cls.code, "order-7", retry_after_s=retry_after_s)


def _header(name: str, description: str, schema: JsonObject) -> JsonObject:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def schema_of(schema: type) -> JsonObject:
    """Refers to one of the document's schemas."""
    return {"$ref": _REF_TEMPLATE.format(model=schema.__name__)}


def _component_schemas(schemas: Sequence[type]) -> JsonObject:
    _, document = TypeAdapter.json_schemas(
        [(schema.__name__, "serialization", TypeAdapter(schema)) for schema in schemas], ref_template=_REF_TEMPLATE
    )
    components: JsonObject = document["$defs"]
    return components
