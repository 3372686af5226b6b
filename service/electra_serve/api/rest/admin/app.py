"""Admin API on a port of its own: its routes and their documentation."""

from __future__ import annotations

from functools import partial
from typing import Final

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from electra_serve import errors
from electra_serve.api.rest.admin.endpoints import BATCHES_PATH, MODELS_PATH, AdminEndpoints
from electra_serve.api.rest.base_app import bare_app
from electra_serve.api.rest.body import JSON_MEDIA_TYPE, SlowBody
from electra_serve.api.rest.openapi import JsonObject, Responses, json_response_of, problems, schema_of
from electra_serve.api.rest.schemas import Problem
from electra_serve.batching.flight_recorder import BatchRecord
from electra_serve.serving.model_info import ModelStatus
from electra_serve.settings.schema import ModelSettings

_ALWAYS: Final = (errors.InternalError,)
_BEGINNING: Final = (*_ALWAYS, errors.ModelNotReady, errors.ShuttingDown, errors.Conflict)
_LOADING: Final = (
    *_BEGINNING,
    errors.MalformedRequest,
    SlowBody,
    errors.UnsupportedMediaType,
    errors.PayloadTooLarge,
    errors.InvalidInput,
    errors.ModelLoadFailed,
)


class StatusesAnswer(BaseModel):
    """Response of `GET /admin/v1/models`."""

    model_config = ConfigDict(frozen=True)

    models: tuple[ModelStatus, ...]


class ModelBatches(BaseModel):
    """The last batches of one model, oldest first."""

    model_config = ConfigDict(frozen=True)

    model: str
    batches: tuple[BatchRecord, ...]


class BatchesAnswer(BaseModel):
    """Response of `GET /admin/v1/flight-recorder`."""

    model_config = ConfigDict(frozen=True)

    models: tuple[ModelBatches, ...]


_SCHEMAS: Final = (ModelStatus, StatusesAnswer, BatchesAnswer, ModelSettings, Problem)


def create_admin_app(endpoints: AdminEndpoints, *, keyed: bool) -> FastAPI:
    """Builds the application; `keyed` documents that it requires API keys."""
    app = bare_app("Loads, reloads and unloads the models of a service.", keyed=keyed, schemas=_SCHEMAS)
    _add_reading(app, endpoints)
    _add_changes(app, endpoints)
    return app


def _add_reading(app: FastAPI, endpoints: AdminEndpoints) -> None:
    add = partial(app.add_api_route, tags=["models"], response_model=None)
    add(
        MODELS_PATH,
        endpoints.list_models,
        summary="List the models",
        description="Every model, its operation in progress, and the reason of its last failed load.",
        responses=json_response_of("The models.", StatusesAnswer) | problems(*_ALWAYS),
    )
    add(
        f"{MODELS_PATH}/{{name:path}}",
        endpoints.get_model,
        summary="Describe one model",
        description="One model, its operation in progress, and the reason of its last failed load.",
        responses=json_response_of("The model.", ModelStatus) | problems(*_ALWAYS, errors.ModelNotFound),
    )
    add(
        BATCHES_PATH,
        endpoints.list_batches,
        summary="The flight recorder",
        description="Shapes, times and outcomes of each model's last batches, oldest first, without their contents.",
        responses=json_response_of("The batches.", BatchesAnswer) | problems(*_ALWAYS),
    )


def _add_changes(app: FastAPI, endpoints: AdminEndpoints) -> None:
    add = partial(app.add_api_route, tags=["changes"], response_model=None)
    begun = json_response_of("The operation has started and did not end within `wait_s`.", ModelStatus, status=202)
    add(
        MODELS_PATH,
        endpoints.load_model,
        methods=["POST"],
        status_code=201,
        summary="Load a model",
        description="The name must be free, or that of a model that failed to load.",
        responses=json_response_of("It is ready.", ModelStatus, status=201) | begun | problems(*_LOADING),
        openapi_extra=_body(schema_of(ModelSettings), required=True),
    )
    add(
        f"{MODELS_PATH}/{{name:path}}/reload",
        endpoints.reload_model,
        methods=["POST"],
        summary="Reload a model",
        description=(
            "Loads the model while the current one serves, and replaces it once the new one is warm. No request is "
            "rejected, and each is served by one of the two. If the load fails, the current one stays."
        ),
        responses=json_response_of("It is ready.", ModelStatus) | begun | problems(*_LOADING, errors.ModelNotFound),
        openapi_extra=_body(
            {"type": "object", "description": "Fields of `ModelSettings` that change; the others stay as they are."},
            required=False,
        ),
    )
    add(
        f"{MODELS_PATH}/{{name:path}}",
        endpoints.unload_model,
        methods=["DELETE"],
        summary="Unload a model",
        description="Rejects new requests to it, completes the others, and frees its memory.",
        responses=_gone() | begun | problems(*_BEGINNING, errors.ModelNotFound),
        status_code=204,
    )


def _body(schema: JsonObject, *, required: bool) -> JsonObject:
    return {"requestBody": {"required": required, "content": {JSON_MEDIA_TYPE: {"schema": schema}}}}


def _gone() -> Responses:
    return {204: {"description": "It is removed."}}
