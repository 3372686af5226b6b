"""Metrics on a port of their own: with the probes, and not on REST."""

from __future__ import annotations

import asyncio
import threading

import pytest
import structlog

from electra_serve.api.rest.app import create_app, create_metrics_app
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.requests import RequestObserver
from electra_serve.settings.schema import RestSettings
from tests.fakes import transit_budget
from tests.unit.api.rest.conftest import connect
from tests.unit.api.rest.models import demo_service
from tests.waiting import until


async def test_metrics_and_probes_have_a_port_of_their_own() -> None:
    service = demo_service()
    async with connect(create_metrics_app(service, Metrics("1.2.3"))) as client:
        assert 'electra_build_info{version="1.2.3"} 1.0' in (await client.get("/metrics")).text
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        service.ready = False
        response = await client.get("/readyz")
        assert (response.status_code, response.json()["code"]) == (503, "model_not_ready")
        assert (await client.get("/v1/models")).status_code == 404
        document = (await client.get("/openapi.json")).json()
        assert set(document["paths"]) == {"/livez", "/readyz", "/metrics"}


@pytest.mark.parametrize(("path", "status"), [("/metrics", 404), ("/livez", 200), ("/readyz", 200)])
async def test_rest_then_has_the_probes_alone(path: str, status: int) -> None:
    observer = RequestObserver("rest", Metrics("0"), structlog.get_logger())
    app = create_app(demo_service(), RestSettings(), None, observer, max_sequences=8, budget=transit_budget())
    async with connect(app) as client:
        assert (await client.get(path)).status_code == status
        assert path in (await client.get("/openapi.json")).json()["paths"] or status == 404


async def test_scrapes_at_the_same_time_share_one_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics("1.2.3")
    rendered, opened = [0], threading.Event()

    def exposition() -> tuple[bytes, str]:
        rendered[0] += 1
        opened.wait(10)
        return b"up 1", "text/plain"

    monkeypatch.setattr(metrics, "exposition", exposition)
    async with connect(create_metrics_app(demo_service(), metrics)) as client:
        scrapes = [asyncio.create_task(client.get("/metrics")) for _ in range(20)]
        await until(lambda: rendered[0] == 1)
        await asyncio.sleep(0.05)
        scrapes[0].cancel()  # it takes nothing from the others
        opened.set()
        assert {(await scrape).text for scrape in scrapes[1:]} == {"up 1"}
    assert rendered == [1]
