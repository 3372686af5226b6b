"""`/livez`, `/readyz` and `/metrics`: for orchestrators and Prometheus, not counted as requests."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import FastAPI
from starlette.responses import Response

from electra_serve.api.rest.openapi import json_answer, problems, text_answer
from electra_serve.api.rest.render import json_response
from electra_serve.api.rest.schemas import Probe
from electra_serve.api.service_protocol import EncodeService
from electra_serve.errors import ModelNotReady
from electra_serve.observability.metrics import Metrics
from electra_serve.runtime.work_thread import WorkThread


class ProbeEndpoints:
    """Tells how the process is.

    Args:
        service: What readiness is asked of.
    """

    def __init__(self, service: EncodeService) -> None:
        self._service = service

    async def livez(self) -> Response:
        """The process answers: that is all a restart could mend."""
        return json_response({"status": "ok"})

    async def readyz(self) -> Response:
        """Every model is ready and requests are admitted; raises `ModelNotReady` otherwise."""
        if not self._service.ready:
            raise ModelNotReady("not ready: a model is loading, or the process is draining")
        return json_response({"status": "ok"})


class MetricsEndpoint:
    """Shows the metrics, which a thread of its own writes: that takes some milliseconds for each model.

    Args:
        metrics: What Prometheus scrapes.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._thread = WorkThread("metrics")
        self._rendering: asyncio.Task[tuple[bytes, str]] | None = None

    async def metrics(self) -> Response:
        """The Prometheus exposition. Requests that come while it is written share it, so they do not queue."""
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
        description="Answers as long as the process can answer at all.",
        responses=json_answer("It is.", Probe) | problems(),
    )
    add(
        "/readyz",
        endpoints.readyz,
        summary="Can requests be answered?",
        description="Answers 503 until every model is ready, and again once the process is draining.",
        responses=json_answer("They can.", Probe) | problems(ModelNotReady),
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
        responses=text_answer("The metrics.") | problems(),
    )
