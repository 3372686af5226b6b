"""REST application: its routes and their documentation."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from inspect import signature
from typing import Any, Final, TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from electra_serve import __version__, errors
from electra_serve.api.oip.parts import OipParts
from electra_serve.api.rest import examples
from electra_serve.api.rest.base_app import bare_app
from electra_serve.api.rest.body import SlowBody
from electra_serve.api.rest.classify import ClassifyEndpoint
from electra_serve.api.rest.encode import EncodeEndpoint
from electra_serve.api.rest.endpoint import ComputeEndpoint
from electra_serve.api.rest.models import ModelEndpoints
from electra_serve.api.rest.oip.endpoint import InferEndpoint
from electra_serve.api.rest.oip.models import OipEndpoints
from electra_serve.api.rest.oip.routes import SCHEMAS as OIP_SCHEMAS
from electra_serve.api.rest.oip.routes import add_oip
from electra_serve.api.rest.openai import routes as openai
from electra_serve.api.rest.openai.endpoint import EmbeddingsEndpoint
from electra_serve.api.rest.openapi import SCHEMAS, JsonObject, Responses, compute_request, json_response_of, problems
from electra_serve.api.rest.playground.assets import PageFacts
from electra_serve.api.rest.playground.routes import add_playground
from electra_serve.api.rest.probes import MetricsEndpoint, ProbeEndpoints, add_metrics, add_probes
from electra_serve.api.rest.protocol import ConnectionsFull
from electra_serve.api.rest.rerank import routes as rerank
from electra_serve.api.rest.schemas import (
    ClassifyAnswer,
    ClassifyBody,
    EncodeAnswer,
    EncodeBody,
    ListedModel,
    ModelsAnswer,
    TokenizeAnswer,
    TokenizeBody,
)
from electra_serve.api.rest.tei import endpoint as tei
from electra_serve.api.rest.tei.info import InfoEndpoints
from electra_serve.api.rest.tei.routes import SCHEMAS as TEI_SCHEMAS
from electra_serve.api.rest.tei.routes import TeiEndpoints, add_tei
from electra_serve.api.rest.tokenize import TokenizeEndpoint
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.requests import RequestObserver
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.transit_budget import TransitBudget
from electra_serve.settings.schema import ApiSettings, RestSettings

E = TypeVar("E", bound=ComputeEndpoint[Any, Any])

_COMPUTE_ERRORS: Final = (
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
    "Encodes sequences of ids, or texts. Sequences may differ in length; entry i of every output belongs to sequence "
    "i. No published ELECTRA weights have a trained pooler behind `pooled_output`: for embeddings, prefer "
    "`mean_output` or `cls_output`."
)

_CLASSIFY_DESCRIPTION: Final = (
    "Computes labels of sequences, labeled spans of texts with character offsets, or answer spans of a question in a "
    "context, with the head of a model. Entry i of the response belongs to sequence i. The model's description has its "
    "`head`, `labels` and `activation`."
)
_TOKENIZE_DESCRIPTION: Final = (
    "Finds the tokens of texts by the model's own tokenizer, with their ids, pieces and character offsets. The ids are "
    "those that `/v1/encode` computes with. Nothing is truncated."
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
    apis: ApiSettings = ApiSettings(),  # noqa: B008  # frozen
    oip: OipParts | None = None,
    grpc_port: int = 0,
) -> FastAPI:
    """Builds the application, with `/metrics` unless `metrics` is None, and the Open Inference Protocol with `oip`.

    `max_sequences` is the most that any model accepts in a request. `thread` decodes large bodies and renders large
    responses; None creates one. The page shows `grpc_port`, unless it is 0.
    """
    app = bare_app(
        "ELECTRA encoders: hidden states and embeddings of ids and texts, and their classification.",
        keyed=authenticator.keyed,
        cors_origins=settings.cors_origins,
        schemas=tuple(
            dict.fromkeys(
                (
                    *SCHEMAS,
                    *(openai.SCHEMAS if apis.openai else ()),
                    *(rerank.SCHEMAS if apis.rerank else ()),
                    *(TEI_SCHEMAS if apis.tei else ()),
                    *(OIP_SCHEMAS if oip else ()),
                )
            )
        ),
    )
    app.router.route_class = _PlainRoute
    decoder = thread or WorkThread("decoder")

    def build(
        kind: Callable[..., E],
        settings: RestSettings = settings,
        max_sequences: int = max_sequences,
        observer: RequestObserver = observer,
    ) -> E:
        return kind(
            service,
            settings,
            observer,
            max_sequences=max_sequences,
            budget=budget,
            thread=decoder,
            authenticator=authenticator,
        )

    _add_native(app, build)
    large = settings.model_copy(update={"max_body_bytes": apis.max_body_bytes})
    if oip is not None:
        infer = build(partial(InferEndpoint, max_json_bytes=settings.max_body_bytes), large, observer=oip.observer)
        add_oip(app, OipEndpoints(service, oip, settings, decoder, authenticator), infer)
    if apis.openai:
        openai.add_openai(app, build(EmbeddingsEndpoint, large, apis.max_inputs))
    rank = None
    if apis.rerank:
        build_rerank = partial(build, settings=large, max_sequences=apis.max_documents)
        rank = rerank.add_rerank(app, build_rerank, tei=apis.tei, tei_model=apis.tei_model)
    if apis.tei:
        info = InfoEndpoints(service, settings, apis, observer, authenticator)
        build_tei = partial(build, settings=large, max_sequences=apis.max_inputs)
        add_tei(app, _tei_endpoints(service, apis, info, build_tei, rank))
    _add_models(app, ModelEndpoints(service, observer, authenticator))
    add_probes(app, ProbeEndpoints(service))
    if metrics is not None:
        add_metrics(app, MetricsEndpoint(metrics))
    if settings.playground:
        facts = PageFacts(
            version=__version__,
            metrics=metrics is not None,
            keyed=authenticator.keyed,
            openai=apis.openai,
            rerank=apis.rerank,
            grpc_port=grpc_port,
        )
        add_playground(app, facts, send_timeout_s=settings.send_timeout_s)
    return app


def create_metrics_app(service: EncodeService, metrics: Metrics) -> FastAPI:
    """Builds the application of a separate port: `/metrics`, and probes for clients without a certificate."""
    app = bare_app("Metrics and probes of an ELECTRA service.")
    app.router.route_class = _PlainRoute
    add_probes(app, ProbeEndpoints(service))
    add_metrics(app, MetricsEndpoint(metrics))
    return app


class _PlainRoute(APIRoute):
    """Route whose endpoint takes the request and path parameters only, without FastAPI's own parsing.

    FastAPI's handler costs a tenth of a short request, and 10 ms or more for a long query string or cookie.
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


def _tei_endpoints(
    service: EncodeService,
    apis: ApiSettings,
    info: InfoEndpoints,
    build: Callable[..., Any],
    rank: ComputeEndpoint[Any, Any] | None,
) -> TeiEndpoints:
    def of_model(kind: Callable[..., E]) -> E:
        endpoint: E = build(partial(kind, tei_model=apis.tei_model))
        return endpoint

    embed, predict = of_model(tei.EmbedEndpoint), of_model(tei.PredictEndpoint)
    return TeiEndpoints(
        embed=embed,
        embed_all=of_model(tei.EmbedAllEndpoint),
        predict=predict,
        similarity=of_model(tei.SimilarityEndpoint),
        tokenize=of_model(tei.TokenizeEndpoint),
        decode=of_model(tei.DecodeEndpoint),
        default=tei.DefaultEndpoint(service, apis.tei_model, embed.serve, predict.serve, rank.serve if rank else None),
        info=info,
    )


def _add_native(app: FastAPI, build: Callable[..., Any]) -> None:
    add = partial(_add_compute, app)
    add(
        "encode",
        build(EncodeEndpoint),
        summary="Encode ids or texts",
        description=_ENCODE_DESCRIPTION,
        request=compute_request(EncodeBody, examples.REQUESTS),
        response=json_response_of("The requested outputs.", EncodeAnswer, examples.RESPONSES),
    )
    add(
        "classify",
        build(ClassifyEndpoint),
        summary="Classify ids or texts",
        description=_CLASSIFY_DESCRIPTION,
        request=compute_request(ClassifyBody, examples.CLASSIFY_REQUESTS),
        response=json_response_of("Labels, spans or answer spans.", ClassifyAnswer, examples.CLASSIFY_RESPONSES),
    )
    add(
        "tokenize",
        build(TokenizeEndpoint),
        summary="Tokenize texts",
        description=_TOKENIZE_DESCRIPTION,
        request=compute_request(TokenizeBody, examples.TOKENIZE_REQUESTS),
        response=json_response_of("The tokens.", TokenizeAnswer, examples.TOKENIZE_RESPONSES),
    )


def _add_compute(
    app: FastAPI,
    name: str,
    endpoint: ComputeEndpoint[Any, Any],
    *,
    summary: str,
    description: str,
    request: JsonObject,
    response: Responses,
) -> None:
    """Adds a native route that computes, `POST /v1/{name}`."""
    app.router.add_api_route(
        f"/v1/{name}",
        endpoint.serve,
        name=name,
        methods=["POST"],
        tags=[name],
        summary=summary,
        description=description,
        response_model=None,
        responses=response | problems(*_COMPUTE_ERRORS),
        openapi_extra=request,
    )


def _add_models(app: FastAPI, endpoints: ModelEndpoints) -> None:
    add = partial(app.add_api_route, tags=["models"], response_model=None)
    add(
        "/v1/models",
        endpoints.list_models,
        summary="List the models",
        description="Every configured model, whatever its state.",
        responses=json_response_of("The models.", ModelsAnswer) | problems(),
    )
    add(
        "/v1/models/{name:path}",
        endpoints.get_model,
        summary="Describe one model",
        description="One configured model: its state, shape, origin and limits.",
        responses=json_response_of("The model.", ListedModel) | problems(errors.ModelNotFound),
    )
