"""The application over a fake service, and a client that speaks to it in process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import httpx
import pytest
import structlog
from fastapi import FastAPI
from structlog.testing import CapturingLogger

from electra_serve.api.oip.parts import OipParts
from electra_serve.api.rest.app import create_app
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.requests import RequestObserver
from electra_serve.observability.statistics import read_statistics
from electra_serve.settings.schema import ApiSettings, RestSettings
from tests.fake_service import FakeService
from tests.fakes import transit_budget
from tests.unit.api.rest.models import demo_service

SETTINGS = RestSettings(max_body_bytes=4096)


@dataclass
class Rest:
    """The REST side, with everything that it was made of."""

    service: FakeService = field(default_factory=demo_service)
    metrics: Metrics = field(default_factory=lambda: Metrics("0"))
    log: CapturingLogger = field(default_factory=CapturingLogger)

    def app(
        self,
        settings: RestSettings = SETTINGS,
        authenticator: Authenticator = ALLOW_ALL,
        apis: ApiSettings = ApiSettings(),  # noqa: B008  # frozen
    ) -> FastAPI:
        log = structlog.wrap_logger(self.log, [], structlog.make_filtering_bound_logger("debug"))
        observer = RequestObserver("rest", self.metrics, log)
        oip = OipParts(RequestObserver("oip_rest", self.metrics, log), partial(read_statistics, self.metrics))
        return create_app(
            self.service,
            settings,
            self.metrics,
            observer,
            max_sequences=256,
            budget=transit_budget(),
            authenticator=authenticator,
            apis=apis,
            oip=oip if apis.oip else None,
        )

    def counted(self, *, model: str, code: str, transport: str = "rest") -> float:
        """Returns the number of requests with that outcome."""
        labels = {"model": model, "transport": transport, "code": code}
        return self.metrics.registry.get_sample_value("electra_requests_total", labels) or 0.0

    @property
    def in_flight(self) -> float | None:
        return self.metrics.registry.get_sample_value("electra_requests_in_flight", {"transport": "rest"})


def connect(app: FastAPI) -> httpx.AsyncClient:
    """Returns a client whose server responds even if the application raises, as real ones do."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.7", 50000))
    return httpx.AsyncClient(transport=transport, base_url="http://rest.test")


@pytest.fixture
def rest() -> Rest:
    return Rest()


@pytest.fixture
async def client(rest: Rest) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(rest.app()) as connected:
        yield connected
