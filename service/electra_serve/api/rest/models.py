"""`GET /v1/models` and `GET /v1/models/{name}`: the models and their states."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from electra_serve.api.rest.headers import caller_of, headers_of
from electra_serve.api.rest.middleware import name_span, request_id
from electra_serve.api.rest.render import json_response
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.observability.requests import RequestObserver


class ModelEndpoints:
    """Endpoints that describe the models."""

    def __init__(
        self, service: EncodeService, observer: RequestObserver, authenticator: Authenticator = ALLOW_ALL
    ) -> None:
        self._service = service
        self._observer = observer
        self._authenticator = authenticator

    async def list_models(self, request: Request) -> Response:
        """Lists every configured model."""
        with self._observer.request("GET /v1/models", request_id(request.scope), headers_of(request.scope)) as record:
            name_span(request.scope, record.span)
            caller_of(request, self._authenticator)
            return json_response({"models": self._service.models()})

    async def get_model(self, name: str, request: Request) -> Response:
        """Describes one configured model; raises `ModelNotFound`."""
        with self._observer.request(
            "GET /v1/models/{name}", request_id(request.scope), headers_of(request.scope)
        ) as record:
            name_span(request.scope, record.span)
            caller_of(request, self._authenticator)
            record.model = self._service.label(name)
            return json_response(self._service.model(name))
