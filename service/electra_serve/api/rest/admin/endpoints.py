"""`/admin/v1`: the state of each model, operations on models, and their last batches.

An operation responds when it has ended: 201 or 200 with the model, 204 if it is removed, or a problem. So a script
needs one call. After `wait_s` the response is 202 with the current state, and the client polls. The operation
continues in either case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, Protocol
from urllib.parse import quote

import structlog
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from electra_serve.api.rest.admin.model_settings import changed_model, new_model, parse_unambiguous
from electra_serve.api.rest.body import read_body
from electra_serve.api.rest.headers import caller_of, headers_of
from electra_serve.api.rest.middleware import request_id
from electra_serve.api.rest.render import json_response
from electra_serve.api.security.authentication import Authenticator
from electra_serve.batching.flight_recorder import BatchRecord
from electra_serve.errors import InternalError, ServiceError
from electra_serve.serving.manager import Operation
from electra_serve.serving.model_info import ModelStatus
from electra_serve.settings.schema import ModelSettings, RestSettings

MODELS_PATH: Final = "/admin/v1/models"
BATCHES_PATH: Final = "/admin/v1/flight-recorder"
DEFAULT_WAIT_S: Final = 600.0
MAX_BODY_BYTES: Final = 16_384  # More than the settings of a model take. The body is parsed on the event loop.
MAX_WAIT_S: Final = 3600.0

WaitSeconds = Annotated[
    float,
    Query(
        ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end of the operation; 0: respond once it has started."
    ),
]


class Administration(Protocol):
    """Operations on models; `electra_serve.serving.manager.ModelManager` and test fakes implement it."""

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Returns the status of every model."""
        ...

    def status(self, name: str) -> ModelStatus:
        """Returns the status of one model; raises `electra_serve.errors.ModelNotFound`."""
        ...

    def batches(self) -> Mapping[str, Sequence[BatchRecord]]:
        """Returns the last batches of every model, by its name."""
        ...

    def settings(self, name: str) -> ModelSettings:
        """Returns the settings of one model; raises `electra_serve.errors.ModelNotFound`."""
        ...

    def load(self, settings: ModelSettings) -> Operation:
        """Starts to load a model under a new name; raises a `ServiceError` if it cannot start."""
        ...

    def reload(self, settings: ModelSettings) -> Operation:
        """Starts to replace the model of that name; likewise."""
        ...

    def unload(self, name: str) -> Operation:
        """Starts to remove a model; likewise."""
        ...


@dataclass(slots=True)
class _AdminRecord:
    client: str = ""
    model: str = ""


class AdminEndpoints:
    """Endpoints that list, load, reload and unload models; each request is logged with its client."""

    def __init__(
        self,
        administration: Administration,
        settings: RestSettings,
        authenticator: Authenticator,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._administration = administration
        max_bytes = min(settings.max_body_bytes, MAX_BODY_BYTES)
        self._settings = settings.model_copy(update={"max_body_bytes": max_bytes})
        self._authenticator = authenticator
        self._log = log

    async def list_models(self, request: Request) -> Response:
        """Lists every model."""
        with self._watch(request, f"GET {MODELS_PATH}"):
            return json_response({"models": self._administration.statuses()})

    async def get_model(self, name: str, request: Request) -> Response:
        """Describes one model; raises `ModelNotFound`."""
        with self._watch(request, f"GET {MODELS_PATH}/{{name}}", name):
            return json_response(self._administration.status(name))

    async def list_batches(self, request: Request) -> Response:
        """Lists the last batches of every model."""
        with self._watch(request, f"GET {BATCHES_PATH}"):
            models = self._administration.batches().items()
            return json_response({"models": [{"model": name, "batches": batches} for name, batches in models]})

    async def load_model(self, request: Request, wait_s: WaitSeconds = DEFAULT_WAIT_S) -> Response:
        """Loads a model under a new name; raises a `ServiceError`."""
        with self._watch(request, f"POST {MODELS_PATH}") as record:
            settings = new_model(parse_unambiguous(await self._body(request)))
            record.model = settings.name
            operation = self._administration.load(settings)
            location = {"location": f"{MODELS_PATH}/{quote(settings.name)}"}
            return await self._respond(settings.name, operation, wait_s, HTTPStatus.CREATED, location)

    async def reload_model(self, name: str, request: Request, wait_s: WaitSeconds = DEFAULT_WAIT_S) -> Response:
        """Reloads a model; raises a `ServiceError`."""
        with self._watch(request, f"POST {MODELS_PATH}/{{name}}/reload", name):
            settings = self._administration.settings(name)
            name = settings.name  # an alias may not exist afterwards
            if _has_body(request):
                settings = changed_model(settings, parse_unambiguous(await self._body(request)))
            return await self._respond(name, self._administration.reload(settings), wait_s, HTTPStatus.OK)

    async def unload_model(self, name: str, request: Request, wait_s: WaitSeconds = DEFAULT_WAIT_S) -> Response:
        """Unloads a model; raises a `ServiceError`."""
        with self._watch(request, f"DELETE {MODELS_PATH}/{{name}}", name):
            return await self._respond(name, self._administration.unload(name), wait_s, HTTPStatus.NO_CONTENT)

    async def _body(self, request: Request) -> bytes:
        return await read_body(headers_of(request.scope), request.receive, self._settings)

    async def _respond(
        self, name: str, operation: Operation, wait_s: float, done: HTTPStatus, headers: dict[str, str] | None = None
    ) -> Response:
        status = done if await operation.finished(wait_s) else HTTPStatus.ACCEPTED
        if status is HTTPStatus.NO_CONTENT:
            return Response(status_code=status)
        response = json_response(self._administration.status(name))
        response.status_code = status
        response.headers.update(headers or {})
        return response

    @contextmanager
    def _watch(self, request: Request, method: str, model: str = "") -> Iterator[_AdminRecord]:
        """Authenticates a request, and logs it with its outcome."""
        record, code = _AdminRecord(model=model), InternalError.code
        try:
            record.client = caller_of(request, self._authenticator)
            yield record
            code = "ok"
        except ServiceError as error:
            code = error.code
            raise
        finally:
            fields = {"method": method, "model": record.model, "client": record.client, "code": code}
            self._log.info("admin request", request_id=request_id(request.scope), **fields)


def _has_body(request: Request) -> bool:
    headers = headers_of(request.scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
