"""Handlers that turn every error which reaches FastAPI into a problem response."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from electra_serve.api.rest.error_formats import error_format
from electra_serve.api.rest.middleware import request_id
from electra_serve.api.rest.problems import Failure, failure_response, problem_response
from electra_serve.errors import MalformedRequest, ServiceError

_HTTP_ERRORS: Final = {
    404: ("Not found", "not_found", "no such path; /openapi.json lists them"),
    405: ("Method not allowed", "method_not_allowed", "this path takes only the methods that the Allow header lists"),
}
_OTHER_HTTP_ERROR: Final = ("HTTP error", "http_error", "the request cannot be served")


def add_problem_handlers(app: FastAPI) -> None:
    """Adds handlers for service errors, failed routing and failed validation."""
    app.exception_handler(ServiceError)(_handle_service_error)
    app.exception_handler(HTTPException)(_handle_http_error)
    app.exception_handler(RequestValidationError)(_handle_validation_error)


async def _handle_service_error(request: Request, error: ServiceError) -> Response:
    return problem_response(error, request_id(request.scope), error_format(request.scope))


async def _handle_http_error(request: Request, error: HTTPException) -> Response:
    title, code, detail = _HTTP_ERRORS.get(error.status_code, _OTHER_HTTP_ERROR)
    failure = Failure(error.status_code, title, detail, code, request_id(request.scope))
    headers = {"allow": _allowed(request)} if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    return failure_response(failure, error_format(request.scope), headers)


def _allowed(request: Request) -> str:
    """Returns the methods of every route of the path; Starlette returns those of the first, without HEAD."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in routes for method in route.methods}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


async def _handle_validation_error(request: Request, _: RequestValidationError) -> Response:
    """Reports no input: FastAPI's own response would repeat megabytes of invalid ids."""
    error = MalformedRequest("a path or query parameter is not of the documented type")
    return problem_response(error, request_id(request.scope), error_format(request.scope))
