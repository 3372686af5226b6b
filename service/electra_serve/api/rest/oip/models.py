"""Endpoints that describe the server and its models, and those of extensions that are not supported.

Requests are counted without the name of the model, so that its statistics are those of inference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from electra_serve import __version__
from electra_serve.api.oip.decode import check_version
from electra_serve.api.oip.metadata import EXTENSIONS, SERVER_NAME, describe, index_entry
from electra_serve.api.oip.parts import OipParts
from electra_serve.api.rest.body import JSON_MEDIA_TYPE, parse_json, read_body
from electra_serve.api.rest.headers import caller_of, deadline_of, headers_of
from electra_serve.api.rest.members import Members
from electra_serve.api.rest.middleware import name_span, request_id
from electra_serve.api.rest.oip.descriptions import config_of, metadata_of, statistics_of
from electra_serve.api.rest.oip.errors import INFER_BODY
from electra_serve.api.rest.render import json_response
from electra_serve.api.security.authentication import Authenticator
from electra_serve.api.service_protocol import EncodeService
from electra_serve.errors import ModelNotFound, Unsupported
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.model_info import ModelInfo, ModelState
from electra_serve.settings.schema import RestSettings

MAX_INDEX_BYTES: Final = 4096  # of a request for the index of the repository
_RETRY_AFTER: Final = {"retry-after": "1"}


class OipEndpoints:
    """Endpoints of all routes except `infer`."""

    def __init__(
        self,
        service: EncodeService,
        parts: OipParts,
        settings: RestSettings,
        thread: WorkThread,
        authenticator: Authenticator,
    ) -> None:
        self._service = service
        self._parts = parts
        self._settings = settings.model_copy(update={"max_body_bytes": MAX_INDEX_BYTES})
        self._thread = thread
        self._authenticator = authenticator

    async def server(self, request: Request) -> Response:
        """Describes the server."""
        with self._observed("GET /v2", request):
            return json_response({"name": SERVER_NAME, "version": __version__, "extensions": EXTENSIONS})

    async def live(self) -> Response:
        """Responds as long as the process can."""
        return json_response({"live": True})

    async def ready(self) -> Response:
        """Responds with 200 if every model is ready and requests are admitted, else with 503."""
        return _readiness({"ready": self._service.ready}, "a model is loading, or the process is draining")

    async def models(self, request: Request) -> Response:
        """Lists the names of the models, as KServe does."""
        with self._observed("GET /v2/models", request):
            return json_response({"models": [info.name for info in self._service.models()]})

    async def index(self, request: Request) -> Response:
        """Lists the models and their states; of the ready ones, if the body says so."""
        with self._observed("POST /v2/repository/index", request):
            headers = headers_of(request.scope)
            body = await read_body(headers, request.receive, self._settings, deadline_of(request.scope), INFER_BODY)
            only_ready = Members(parse_json(body or b"{}")).flag("ready", default=False)
            infos = [info for info in self._service.models() if info.state is ModelState.READY or not only_ready]
            return json_response([index_entry(info) for info in infos])

    async def all_statistics(self, request: Request) -> Response:
        """Returns the statistics of every model."""
        with self._observed("GET /v2/models/stats", request) as client:
            return await self._statistics(client, [info.name for info in self._service.models()])

    async def model(self, request: Request) -> Response:
        """Describes a model; raises `ModelNotFound` or `ModelNotReady`."""
        with self._observed("GET /v2/models/{name}", request):
            return json_response(metadata_of(describe(self._info(request))))

    async def model_ready(self, request: Request) -> Response:
        """Responds with 200 if the model is ready, else with 503; raises `ModelNotFound`.

        It is a probe: it needs no key, and so shows neither states nor names.
        """
        name = request.path_params["name"]
        check_version(request.path_params.get("version", ""))
        try:
            ready = self._service.model(name).state is ModelState.READY
        except ModelNotFound:  # its message lists all names
            raise ModelNotFound("no model has this name", field="model") from None
        return _readiness({"name": name, "ready": ready}, "the model is not loaded")

    async def model_config(self, request: Request) -> Response:
        """Describes a model as Triton's configuration does; raises `ModelNotFound` or `ModelNotReady`."""
        with self._observed("GET /v2/models/{name}/config", request):
            return json_response(config_of(describe(self._info(request))))

    async def model_statistics(self, request: Request) -> Response:
        """Returns the statistics of a model; raises `ModelNotFound`."""
        with self._observed("GET /v2/models/{name}/stats", request) as client:
            return await self._statistics(client, [self._info(request).name])

    async def unsupported(self, request: Request) -> Response:
        """Raises `Unsupported`."""
        with self._observed("/v2, unsupported", request):
            raise Unsupported(
                f"this route is of an extension that is not supported; those supported are {', '.join(EXTENSIONS)}"
            )

    @contextmanager
    def _observed(self, method: str, request: Request) -> Iterator[str]:
        """Observes a request and yields the client's name; raises `Unauthenticated`."""
        headers = headers_of(request.scope)
        with self._parts.observer.request(method, request_id(request.scope), headers) as record:
            name_span(request.scope, record.span)
            yield caller_of(request, self._authenticator)

    def _info(self, request: Request) -> ModelInfo:
        info = self._service.model(request.path_params["name"])
        check_version(request.path_params.get("version", ""))
        return info

    async def _statistics(self, client: str, names: list[str]) -> Response:
        """Reads the metrics on a thread: that takes a millisecond for each model."""
        found = [await self._thread.run(client, partial(self._parts.statistics, name)) for name in names]
        return json_response({"model_stats": [statistics_of(statistics) for statistics in found]})


def _readiness(members: dict[str, object], reason: str) -> Response:
    if members["ready"]:
        return json_response(members)
    content = orjson.dumps(members | {"error": f"not ready: {reason}"})
    return Response(content, HTTPStatus.SERVICE_UNAVAILABLE, _RETRY_AFTER, JSON_MEDIA_TYPE)
