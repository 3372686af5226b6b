"""FastAPI application without routes: middleware, error handlers and OpenAPI settings of every port."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import Response

from electra_serve import __version__
from electra_serve.api.rest.cors import add_cors
from electra_serve.api.rest.error_handlers import add_problem_handlers
from electra_serve.api.rest.head import HeadMiddleware
from electra_serve.api.rest.middleware import ResponseHeadersMiddleware
from electra_serve.api.rest.openapi import SCHEMAS, DocumentedFastAPI
from electra_serve.api.rest.problem_middleware import ProblemMiddleware


def bare_app(
    summary: str, *, keyed: bool = False, schemas: Sequence[type] = SCHEMAS, cors_origins: Sequence[str] = ()
) -> FastAPI:
    """Builds the application."""
    app = DocumentedFastAPI(
        title="electra-serve",
        summary=summary,
        version=__version__,
        default_response_class=Response,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
        docs_url=None,  # both pages load scripts from other hosts
        redoc_url=None,
        keyed=keyed,
        schemas=schemas,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    add_problem_handlers(app)
    app.add_middleware(ProblemMiddleware)
    add_cors(app, cors_origins)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(ResponseHeadersMiddleware)  # the last one is the outermost
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
