"""`GET /v1/models` and `GET /v1/models/{name}`: the models and their states, for our clients and for OpenAI's.

One object serves both: `models` lists each model once, and `data` lists each name and alias as OpenAI does.
"""

from __future__ import annotations

import time
from dataclasses import fields

from starlette.requests import Request
from starlette.responses import Response

from electra_serve.api.rest.headers import caller_of, headers_of
from electra_serve.api.rest.middleware import name_span, request_id
from electra_serve.api.rest.render import json_response
from electra_serve.api.rest.schemas import ListedModel
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.observability.requests import RequestObserver
from electra_serve.serving.model_info import ModelInfo


class ModelEndpoints:
    """Endpoints that describe the models."""

    def __init__(
        self, service: EncodeService, observer: RequestObserver, authenticator: Authenticator = ALLOW_ALL
    ) -> None:
        self._service = service
        self._observer = observer
        self._authenticator = authenticator
        self._created = int(time.time())

    async def list_models(self, request: Request) -> Response:
        """Lists every configured model."""
        with self._observer.request("GET /v1/models", request_id(request.scope), headers_of(request.scope)) as record:
            name_span(request.scope, record.span)
            caller_of(request, self._authenticator)
            models = self._service.models()
            return json_response(
                {
                    "object": "list",
                    "data": [self._described(info, name) for info in models for name in (info.name, *info.aliases)],
                    "models": [self._described(info, info.name) for info in models],
                }
            )

    async def get_model(self, name: str, request: Request) -> Response:
        """Describes one configured model; raises `ModelNotFound`."""
        with self._observer.request(
            "GET /v1/models/{name}", request_id(request.scope), headers_of(request.scope)
        ) as record:
            name_span(request.scope, record.span)
            caller_of(request, self._authenticator)
            record.model = self._service.label(name)
            return json_response(self._described(self._service.model(name), name))

    def _described(self, info: ModelInfo, name: str) -> ListedModel:
        """Returns the description of a model by one of its names."""
        known = {field.name: getattr(info, field.name) for field in fields(info)}
        return ListedModel(**known, id=name, created=self._created)
