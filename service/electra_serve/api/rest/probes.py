"""`/livez`, `/readyz` and `/metrics`: for orchestrators and Prometheus, not counted as requests."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import FastAPI
from starlette.responses import Response

from electra_serve.api.rest.openapi import json_response_of, problems, text_response_of
from electra_serve.api.rest.render import json_response
from electra_serve.api.rest.schemas import Probe
from electra_serve.api.service_protocol import EncodeService
from electra_serve.errors import ModelNotReady
from electra_serve.observability.metrics import Metrics
from electra_serve.runtime.work_thread import WorkThread


class ProbeEndpoints:
    """Endpoints of the liveness and readiness probes."""

    def __init__(self, service: EncodeService) -> None:
        self._service = service

    async def livez(self) -> Response:
        """Responds as long as the process can: nothing else would be fixed by a restart."""
        return json_response({"status": "ok"})

    async def readyz(self) -> Response:
        """Responds if every model is ready and requests are admitted; raises `ModelNotReady` otherwise."""
        if not self._service.ready:
            raise ModelNotReady("not ready: a model is loading, or the process is draining")
        return json_response({"status": "ok"})


class MetricsEndpoint:
    """Endpoint of the metrics, rendered on a thread: that takes some milliseconds for each model."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._thread = WorkThread("metrics")
        self._rendering: asyncio.Task[tuple[bytes, str]] | None = None

    async def metrics(self) -> Response:
        """Returns the Prometheus exposition; concurrent requests share one rendering."""
        if self._rendering is None or self._rendering.done():
            self._rendering = asyncio.create_task(self._thread.run("", self._metrics.exposition))
        content, media_type = await asyncio.shield(self._rendering)
        return Response(content, media_type=media_type)


def add_probes(app: FastAPI, endpoints: ProbeEndpoints) -> None:
    """Adds the paths of the probes."""
    add = partial(app.add_api_route, tags=["probes"], response_model=None)
    add(
        "/livez",
        endpoints.livez,
        summary="Is the process alive?",
        description="Responds as long as the process can respond at all.",
        responses=json_response_of("It is.", Probe) | problems(),
    )
    add(
        "/readyz",
        endpoints.readyz,
        summary="Are requests admitted?",
        description="Responds with 503 until every model is ready, and again once the process is draining.",
        responses=json_response_of("They are.", Probe) | problems(ModelNotReady),
    )


def add_metrics(app: FastAPI, endpoint: MetricsEndpoint) -> None:
    """Adds the path of the metrics."""
    app.add_api_route(
        "/metrics",
        endpoint.metrics,
        tags=["probes"],
        response_model=None,
        summary="Metrics for Prometheus",
        description="Every instrument, in the Prometheus text format.",
        responses=text_response_of("The metrics.") | problems(),
    )
