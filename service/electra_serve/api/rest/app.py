"""The HTTP application: which path leads where, and what the OpenAPI document says of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from inspect import signature
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from electra_serve import errors
from electra_serve.api.rest import examples
from electra_serve.api.rest.base_app import bare_app
from electra_serve.api.rest.body import SlowBody
from electra_serve.api.rest.encode import EncodeEndpoint
from electra_serve.api.rest.models import ModelEndpoints
from electra_serve.api.rest.openapi import encode_request, json_answer, problems
from electra_serve.api.rest.probes import MetricsEndpoint, ProbeEndpoints, add_metrics, add_probes
from electra_serve.api.rest.protocol import ConnectionsFull
from electra_serve.api.rest.schemas import EncodeAnswer, ModelsAnswer
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.requests import RequestObserver
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.transit_budget import TransitBudget
from electra_serve.settings.schema import RestSettings

_ENCODE_ERRORS: Final = (
    errors.MalformedRequest,
    SlowBody,
    errors.UnsupportedMediaType,
    errors.ModelNotFound,
    errors.PayloadTooLarge,
    errors.InvalidInput,
    errors.Overloaded,
    ConnectionsFull,
    errors.EngineFailure,
    errors.InternalError,
    errors.ModelNotReady,
    errors.ShuttingDown,
    errors.DeadlineExceeded,
)
_ENCODE_DESCRIPTION: Final = (
    "Runs sequences of ids, or texts, through an ELECTRA encoder. Rows may differ in length; entry i of every output "
    "is row i's, whatever it was batched with. No published ELECTRA weights have a trained pooler behind "
    "`pooled_output`: as an embedding, prefer `mean_output` or `cls_output`."
)


def create_app(
    service: EncodeService,
    settings: RestSettings,
    metrics: Metrics | None,
    observer: RequestObserver,
    *,
    max_sequences: int,
    budget: TransitBudget,
    thread: WorkThread | None = None,
    authenticator: Authenticator = ALLOW_ALL,
) -> FastAPI:
    """Builds the application.

    Args:
        service: What answers.
        settings: The limits on bodies, and origins; host and port are the server's business.
        metrics: What `/metrics` shows; None: it is shown elsewhere.
        observer: Counts and logs the requests to `/v1`.
        max_sequences: Most sequences of one request that any model takes.
        budget: Bytes in transit.
        thread: Decodes large bodies and renders large responses; None: one of its own.
        authenticator: Who may ask `/v1` anything.
    """
    app = bare_app(
        "ELECTRA encoders: hidden states and embeddings of ids and texts.",
        keyed=authenticator.keyed,
        cors_origins=settings.cors_origins,
    )
    app.router.route_class = _PlainRoute
    _add_encode(
        app,
        EncodeEndpoint(
            service,
            settings,
            observer,
            max_sequences=max_sequences,
            budget=budget,
            thread=thread or WorkThread("decoder"),
            authenticator=authenticator,
        ),
    )
    _add_models(app, ModelEndpoints(service, observer, authenticator))
    add_probes(app, ProbeEndpoints(service))
    if metrics is not None:
        add_metrics(app, MetricsEndpoint(metrics))
    return app


def create_metrics_app(service: EncodeService, metrics: Metrics) -> FastAPI:
    """Builds the application for a port of its own: `/metrics`, and the probes.

    The probes are there for who may not, or cannot, speak to the REST port: it may ask for client certificates.

    Args:
        service: What readiness is asked of.
        metrics: What `/metrics` shows.
    """
    app = bare_app("Metrics and probes of an ELECTRA service.")
    app.router.route_class = _PlainRoute
    add_probes(app, ProbeEndpoints(service))
    add_metrics(app, MetricsEndpoint(metrics))
    return app


class _PlainRoute(APIRoute):
    """A route whose endpoint takes the request and parts of the path, and nothing that FastAPI would have to parse.

    FastAPI's own handler costs a tenth of a short request. For a long query string or cookie it takes 10 ms and more.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns a handler that calls the endpoint."""
        endpoint, takes_request = self.endpoint, "request" in signature(self.endpoint).parameters
        if takes_request and not self.param_convertors:
            return endpoint

        async def handle(request: Request) -> Response:
            given = {"request": request} if takes_request else {}
            response: Response = await endpoint(**request.path_params, **given)
            return response

        return handle


def _add_encode(app: FastAPI, endpoint: EncodeEndpoint) -> None:
    app.router.add_api_route(
        "/v1/encode",
        endpoint.encode,
        methods=["POST"],
        tags=["encode"],
        summary="Encode ids or texts",
        description=_ENCODE_DESCRIPTION,
        response_model=None,
        responses=json_answer("The outputs asked for.", EncodeAnswer, examples.ANSWERS) | problems(*_ENCODE_ERRORS),
        openapi_extra=encode_request(),
    )


def _add_models(app: FastAPI, endpoints: ModelEndpoints) -> None:
    add = partial(app.add_api_route, tags=["models"], response_model=None)
    add(
        "/v1/models",
        endpoints.list_models,
        summary="List the models",
        description="Every configured model, whatever its state.",
        responses=json_answer("The models.", ModelsAnswer) | problems(),
    )
    add(
        "/v1/models/{name:path}",
        endpoints.get_model,
        summary="Describe one model",
        description="One configured model: its state, shape, origin and limits.",
        responses=json_answer("The model.", ModelInfo) | problems(errors.ModelNotFound),
    )
