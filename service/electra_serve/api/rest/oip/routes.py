"""Adds the routes of the protocol to the application.

A model's name may have slashes, so paths are read from their end: routes with more parts come first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from fastapi import FastAPI
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from electra_serve.api.rest.body import BINARY_MEDIA_TYPE, JSON_MEDIA_TYPE
from electra_serve.api.rest.error_formats import add_error_format_below, add_error_formats
from electra_serve.api.rest.headers import LENGTH_HEADER
from electra_serve.api.rest.oip import examples, schemas
from electra_serve.api.rest.oip.endpoint import InferEndpoint
from electra_serve.api.rest.oip.errors import as_oip_error
from electra_serve.api.rest.oip.models import OipEndpoints
from electra_serve.api.rest.openapi import JsonObject, Responses, compute_request, json_response_of, schema_of
from electra_serve.api.rest.problems import as_problem

Serve = Callable[[Request], Awaitable[Response]]

SCHEMAS: Final = (
    schemas.OipInferBody,
    schemas.OipInferAnswer,
    schemas.OipServer,
    schemas.OipLive,
    schemas.OipReady,
    schemas.OipModelReady,
    schemas.OipModels,
    schemas.OipModel,
    schemas.OipConfig,
    schemas.OipStatistics,
    schemas.OipIndexBody,
    schemas.OipIndex,
    schemas.OipErrorAnswer,
)
_OTHER_APIS: Final = ("/v2/embed", "/v2/rerank")  # Cohere's, whose errors have a form of their own
_MODEL: Final = "/v2/models/{name:path}"
_VERSION: Final = "/versions/{version}"
_NAME_ALONE: Final = "/v2/models/{name:oip_model}"
_BYTES: Final[JsonObject] = {"schema": {"description": "JSON, then the bytes of tensors.", "contentEncoding": "binary"}}
_FAILED: Final[Responses] = {"default": json_response_of("A failed request.", schemas.OipErrorAnswer)[200]}
_UNSUPPORTED: Final = (
    "/v2/systemsharedmemory/{rest:path}",
    "/v2/cudasharedmemory/{rest:path}",
    "/v2/trace/setting",
    "/v2/logging",
    "/v2/repository/models/{name:path}/load",
    "/v2/repository/models/{name:path}/unload",
    *(
        f"{_MODEL}{version}/{action}"
        for version in (_VERSION, "")
        for action in ("trace/setting", "generate", "generate_stream")
    ),
)


class _ModelName(PathConvertor):
    """Name of a model that no action follows, so that an action with a wrong method gets 405."""

    regex = r"(?!.*/(?:infer|ready|config|stats)$).+"


register_url_convertor("oip_model", _ModelName())


def add_oip(app: FastAPI, endpoints: OipEndpoints, infer: InferEndpoint) -> None:
    """Adds the routes, whose errors have the protocol's form."""
    add_error_format_below(app, "/v2", as_oip_error)
    add_error_formats(app, dict.fromkeys(_OTHER_APIS, as_problem))
    _add_infer(app, infer)  # first, since routes are tried in turn
    _add_server(app, endpoints)
    for path in _UNSUPPORTED:
        app.router.add_route(path, endpoints.unsupported, methods=["GET", "POST"], include_in_schema=False)
    _add_models(app, endpoints)


def _add_server(app: FastAPI, endpoints: OipEndpoints) -> None:
    get = partial(_add, app)
    get("/v2", endpoints.server, "server", "Describe the server", schemas.OipServer)
    # The protocol's OpenAPI document has a slash at the end, its text has not
    app.router.add_route("/v2/", endpoints.server, methods=["GET"], include_in_schema=False)
    get("/v2/health/live", endpoints.live, "live", "Is the process alive?", schemas.OipLive)
    ready = json_response_of("They are not.", schemas.OipReady, status=503)
    get("/v2/health/ready", endpoints.ready, "ready", "Are requests admitted?", schemas.OipReady, more=ready)
    get("/v2/models", endpoints.models, "models", "List the models' names", schemas.OipModels)
    get("/v2/models/stats", endpoints.all_statistics, "all_stats", "Statistics of the models", schemas.OipStatistics)
    content = {JSON_MEDIA_TYPE: {"schema": schema_of(schemas.OipIndexBody)}}
    _add(
        app,
        "/v2/repository/index",
        endpoints.index,
        "index",
        "List the models and their states",
        schemas.OipIndex,
        method="POST",
        extra={"requestBody": {"required": False, "content": content}},
    )


def _add_infer(app: FastAPI, infer: InferEndpoint) -> None:
    extra = compute_request(schemas.OipInferBody, examples.REQUESTS)
    extra["requestBody"]["content"][BINARY_MEDIA_TYPE] = _BYTES
    extra["parameters"].append(
        {
            "name": LENGTH_HEADER,
            "in": "header",
            "description": "Length of the JSON, if bytes of tensors follow it.",
            "schema": {"type": "integer", "minimum": 1},
        }
    )
    answer = json_response_of("The tensors.", schemas.OipInferAnswer, examples.RESPONSES)
    answer[200]["content"][BINARY_MEDIA_TYPE] = _BYTES
    _add_both(
        app, "/infer", infer.serve, "infer", "Compute outputs", schemas.OipInferAnswer, "POST", more=answer, extra=extra
    )


def _add_models(app: FastAPI, endpoints: OipEndpoints) -> None:
    both = partial(_add_both, app)
    not_ready = json_response_of("It is not.", schemas.OipModelReady, status=503)
    both("/ready", endpoints.model_ready, "model_ready", "Is a model ready?", schemas.OipModelReady, more=not_ready)
    both("/config", endpoints.model_config, "config", "Configuration of a model", schemas.OipConfig)
    both("/stats", endpoints.model_statistics, "stats", "Statistics of a model", schemas.OipStatistics)
    both("", endpoints.model, "model", "Describe the tensors of a model", schemas.OipModel)


def _add_both(app: FastAPI, action: str, serve: Serve, name: str, *documented: Any, **named: Any) -> None:
    """Adds a route of a model, with and without its version."""

    async def of_version(name: str, version: str, request: Request) -> Response:  # noqa: ARG001  # of the path
        return await serve(request)

    async def of_model(name: str, request: Request) -> Response:  # noqa: ARG001  # of the path
        return await serve(request)

    _add(app, f"{_MODEL}{_VERSION}{action}", of_version, f"{name}_of_version", *documented, **named)
    _add(app, f"{_MODEL if action else _NAME_ALONE}{action}", of_model, name, *documented, **named)


def _add(
    app: FastAPI,
    path: str,
    serve: Callable[..., Any],
    name: str,
    summary: str,
    answer: type,
    method: str = "GET",
    *,
    more: Responses | None = None,
    extra: JsonObject | None = None,
) -> None:
    app.router.add_api_route(
        path,
        serve,
        methods=[method],
        tags=["Open Inference Protocol"],
        name=f"oip_{name}",
        summary=summary,
        response_model=None,
        responses=json_response_of("The response.", answer) | (more or {}) | _FAILED,
        openapi_extra=extra,
    )
