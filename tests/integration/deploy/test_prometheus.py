"""prometheus.yml scrapes the service of docker-compose.yml, at the real path of its metrics."""

from __future__ import annotations

from typing import Annotated

import httpx
import structlog
import yaml
from pydantic import BaseModel, Field

from electra_serve.api.rest.app import create_app
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.requests import RequestObserver
from electra_serve.settings.schema import RestSettings, Settings
from tests.fakes import transit_budget
from tests.integration.deploy.deployment import PROMETHEUS_FILE, SERVICE, compose
from tests.unit.api.rest.models import demo_service


class StaticConfig(BaseModel, extra="forbid"):
    targets: list[str]


class ScrapeConfig(BaseModel, extra="forbid"):
    job_name: str
    metrics_path: str
    static_configs: Annotated[list[StaticConfig], Field(min_length=1)]


class Prometheus(BaseModel, extra="forbid"):
    global_: dict[str, str] = Field(alias="global")
    rule_files: list[str]
    scrape_configs: list[ScrapeConfig]


def scrape_config() -> ScrapeConfig:
    (config,) = Prometheus.model_validate(yaml.safe_load(PROMETHEUS_FILE.read_text())).scrape_configs
    return config


def test_it_scrapes_the_service_at_its_rest_port(container_settings: Settings) -> None:
    targets = [target for config in scrape_config().static_configs for target in config.targets]
    assert targets == [f"{SERVICE}:{container_settings.rest.port}"]
    assert SERVICE in compose().services


async def test_the_metrics_are_where_it_looks() -> None:
    metrics = Metrics("1.2.3")
    app = create_app(
        demo_service(),
        RestSettings(),
        metrics,
        RequestObserver("rest", metrics, structlog.get_logger()),
        max_sequences=8,
        budget=transit_budget(),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rest.test") as client:
        response = await client.get(scrape_config().metrics_path)
    assert response.status_code == 200
    assert 'electra_build_info{version="1.2.3"} 1.0' in response.text


def test_the_rules_are_where_it_looks() -> None:
    found = [
        file.name
        for pattern in Prometheus.model_validate(yaml.safe_load(PROMETHEUS_FILE.read_text())).rule_files
        for file in PROMETHEUS_FILE.parent.glob(pattern)
    ]
    assert sorted(found) == ["alerts.yml", "recording.yml"]


def test_prometheus_runs_with_this_file() -> None:
    mounts = dict(volume.split(":")[:2] for volume in compose().services["prometheus"].volumes)
    assert mounts[f"./deploy/{PROMETHEUS_FILE.parent.name}"] == "/etc/prometheus"
