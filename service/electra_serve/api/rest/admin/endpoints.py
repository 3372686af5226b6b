"""`/admin/v1`: what is served, with more than callers may know, changes to it, and its last batches.

A change is answered when it has come to its end, so that a script needs one call and its exit code: 201 or 200 with the
model as it is then, 204 where it has gone, or the problem that it came to. Who would rather not wait that long says so
by `wait_s`, is answered 202 with the model as it is meanwhile, and asks for it again. The change goes on either way.
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
MAX_BODY_BYTES: Final = 16_384
"""A model's settings take less, and the body is parsed on the event loop."""
MAX_WAIT_S: Final = 3600.0

WaitSeconds = Annotated[
    float,
    Query(
        ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end of the change; 0: answer as soon as it begins."
    ),
]


class Administration(Protocol):
    """What the endpoints need: `electra_serve.serving.manager.ModelManager` fits, and so does a fake."""

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Every model."""
        ...

    def status(self, name: str) -> ModelStatus:
        """One model; raises `electra_serve.errors.ModelNotFound`."""
        ...

    def batches(self) -> Mapping[str, Sequence[BatchRecord]]:
        """What became of the last batches of every model, by its name."""
        ...

    def settings(self, name: str) -> ModelSettings:
        """What one model is loaded by; raises `electra_serve.errors.ModelNotFound`."""
        ...

    def load(self, settings: ModelSettings) -> Operation:
        """Begins to load a model under a new name; raises a `ServiceError` where it cannot begin."""
        ...

    def reload(self, settings: ModelSettings) -> Operation:
        """Begins to load a model in the place of the one of its name; likewise."""
        ...

    def unload(self, name: str) -> Operation:
        """Begins to take a model out of service; likewise."""
        ...


@dataclass(slots=True)
class _AdminRecord:
    """What becomes known of a request, for the log."""

    client: str = ""
    model: str = ""


class AdminEndpoints:
    """Lists, loads, reloads and unloads models.

    Args:
        administration: What does it.
        settings: The limits on bodies.
        authenticator: Who may ask.
        log: Where each request leaves a line, with the name of the key that it came with.
    """

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
        """Every model."""
        with self._watch(request, f"GET {MODELS_PATH}"):
            return json_response({"models": self._administration.statuses()})

    async def get_model(self, name: str, request: Request) -> Response:
        """One model; raises `ModelNotFound`."""
        with self._watch(request, f"GET {MODELS_PATH}/{{name}}", name):
            return json_response(self._administration.status(name))

    async def list_batches(self, request: Request) -> Response:
        """The last batches of every model."""
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
            return await self._answer(settings.name, operation, wait_s, HTTPStatus.CREATED, location)

    async def reload_model(self, name: str, request: Request, wait_s: WaitSeconds = DEFAULT_WAIT_S) -> Response:
        """Loads a model anew; raises a `ServiceError`."""
        with self._watch(request, f"POST {MODELS_PATH}/{{name}}/reload", name):
            settings = self._administration.settings(name)
            name = settings.name  # an alias may be gone afterwards
            if _has_body(request):
                settings = changed_model(settings, parse_unambiguous(await self._body(request)))
            return await self._answer(name, self._administration.reload(settings), wait_s, HTTPStatus.OK)

    async def unload_model(self, name: str, request: Request, wait_s: WaitSeconds = DEFAULT_WAIT_S) -> Response:
        """Takes a model out of service; raises a `ServiceError`."""
        with self._watch(request, f"DELETE {MODELS_PATH}/{{name}}", name):
            return await self._answer(name, self._administration.unload(name), wait_s, HTTPStatus.NO_CONTENT)

    async def _body(self, request: Request) -> bytes:
        return await read_body(headers_of(request.scope), request.receive, self._settings)

    async def _answer(
        self, name: str, operation: Operation, wait_s: float, done: HTTPStatus, headers: dict[str, str] | None = None
    ) -> Response:
        status = done if await operation.finished(wait_s) else HTTPStatus.ACCEPTED
        if status is HTTPStatus.NO_CONTENT:
            return Response(status_code=status)
        answer = json_response(self._administration.status(name))
        answer.status_code = status
        answer.headers.update(headers or {})
        return answer

    @contextmanager
    def _watch(self, request: Request, method: str, model: str = "") -> Iterator[_AdminRecord]:
        """Lets in who may ask, and tells the log who asked what and what came of it."""
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
