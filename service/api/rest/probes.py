"""`/livez`, `/readyz` and `/metrics`: for orchestrators and Prometheus, not counted as requests."""

from __future__ import annotations

from starlette.responses import Response

from service.api.ports import EncodeService
from service.api.rest.respond import json_response
from service.errors import ModelNotReady
from service.metrics import Metrics


class ProbeEndpoints:
    """Tells how the process is.

    Args:
        service: What readiness is asked of.
        metrics: What Prometheus scrapes.
    """

    def __init__(self, service: EncodeService, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    async def livez(self) -> Response:
        """The process answers: that is all a restart could mend."""
        return json_response({"status": "ok"})

    async def readyz(self) -> Response:
        """Every model is ready and requests are admitted; raises `ModelNotReady` otherwise."""
        if not self._service.ready:
            raise ModelNotReady("not ready: a model is loading, or the process is draining")
        return json_response({"status": "ok"})

    async def metrics(self) -> Response:
        """The Prometheus exposition."""
        content, media_type = self._metrics.exposition()
        return Response(content, media_type=media_type)
