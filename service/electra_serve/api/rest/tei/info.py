"""`GET /info` and `GET /health`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from electra_serve import __version__
from electra_serve.api.rest.headers import caller_of, headers_of
from electra_serve.api.rest.middleware import name_span, request_id
from electra_serve.api.rest.render import json_response
from electra_serve.api.rest.tei.model import kind_of, model_name
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.errors import ModelNotReady
from electra_serve.observability.requests import RequestObserver
from electra_serve.serving.model_info import ModelInfo
from electra_serve.settings.schema import ApiSettings, RestSettings


class InfoEndpoints:
    """Endpoints that describe the model and its health."""

    def __init__(
        self,
        service: EncodeService,
        settings: RestSettings,
        apis: ApiSettings,
        observer: RequestObserver,
        authenticator: Authenticator = ALLOW_ALL,
    ) -> None:
        self._service = service
        self._settings = settings
        self._apis = apis
        self._observer = observer
        self._authenticator = authenticator

    async def info(self, request: Request) -> Response:
        """Describes the model; raises `ModelNotFound` or `ModelNotReady`."""
        with self._observer.request("GET /info", request_id(request.scope), headers_of(request.scope)) as record:
            name_span(request.scope, record.span)
            caller_of(request, self._authenticator)
            name = model_name(self._service, self._apis.tei_model)
            record.model = self._service.label(name)
            truncates = self._service.truncates(name)
            return json_response(self._described(self._service.model(name), auto_truncate=truncates))

    async def health(self) -> Response:
        """Responds if every model is ready and requests are admitted; raises `ModelNotReady` otherwise."""
        if not self._service.ready:
            raise ModelNotReady("not ready: a model is loading, or the process is draining")
        return Response()

    def _described(self, info: ModelInfo, *, auto_truncate: bool) -> dict[str, object]:
        return {
            "model_id": info.preset,
            "model_sha": info.revision,
            "model_dtype": info.dtype,
            "served_model_name": info.name,
            "model_type": {kind_of(info): _details(info)},
            "max_concurrent_requests": self._settings.max_connections,
            "max_input_length": info.limits.max_sequence_length if info.limits else None,
            "max_batch_tokens": info.batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": self._apis.max_inputs,
            "auto_truncate": auto_truncate,
            "tokenization_workers": 1,
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }


def _details(info: ModelInfo) -> dict[str, object]:
    if kind_of(info) == "embedding":
        return {"pooling": info.embedding.pooling if info.embedding else None}
    return {
        "id2label": {str(index): label for index, label in enumerate(info.labels)},
        "label2id": {label: index for index, label in enumerate(info.labels)},
    }
