"""docker-compose.yml: valid, hardened, and at one with the Dockerfile and the settings."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from electra_serve.settings.loader import variable_names
from electra_serve.settings.schema import Settings
from tests.integration.deploy.deployment import COMPOSE_FILE, ROOT, SERVICE, Service, compose, last_stage, only

SCHEMA = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
SERVICES = sorted(compose().services.items())
each_service = pytest.mark.parametrize(
    "service", [service for _, service in SERVICES], ids=[name for name, _ in SERVICES]
)


def test_it_follows_the_compose_specification() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    errors = Draft202012Validator(SCHEMA).iter_errors(yaml.safe_load(COMPOSE_FILE.read_text()))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize(("key", "value"), [("read_onyl", True), ("cap_drop", "ALL"), ("stop_grace_period", 35)])
def test_the_specification_rejects_mistakes(key: str, value: object) -> None:
    broken = copy.deepcopy(yaml.safe_load(COMPOSE_FILE.read_text()))
    broken["services"][SERVICE][key] = value
    assert not Draft202012Validator(SCHEMA).is_valid(broken)


@each_service
def test_a_service_can_do_no_more_than_it_must(service: Service) -> None:
    assert service.read_only
    assert service.cap_drop == ["ALL"]
    assert service.security_opt == ["no-new-privileges:true"]
    assert float(service.deploy.resources.limits.cpus) > 0


@each_service
def test_a_service_is_reached_from_this_machine_only(service: Service) -> None:
    assert service.ports
    assert [port for port in service.ports if not port.startswith("127.0.0.1:")] == []


@each_service
def test_an_image_is_pinned_by_tag(service: Service) -> None:
    assert re.fullmatch(r"electra-serve:local|[^:@]+:v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?", service.image)


@each_service
def test_what_is_mounted_exists(service: Service) -> None:
    for volume in service.volumes:
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in compose().volumes


def test_the_published_ports_are_those_listened_on(container_settings: Settings) -> None:
    expected = {f"127.0.0.1:{port}:{port}" for port in (container_settings.rest.port, container_settings.grpc.port)}
    assert set(compose().services[SERVICE].ports) == expected


def test_every_variable_is_a_setting() -> None:
    variables = set(compose().services[SERVICE].environment)
    assert variables
    assert variables <= set(variable_names())


def test_the_health_check_is_the_image_s() -> None:
    assert compose().services[SERVICE].healthcheck.test == ["CMD", *only(last_stage(), "HEALTHCHECK").argv]


def test_the_grace_period_outlasts_the_drain(container_settings: Settings) -> None:
    lifecycle = container_settings.lifecycle
    grace = compose().services[SERVICE].stop_grace_period
    assert grace.endswith("s")
    assert float(grace[:-1]) > lifecycle.drain_delay_s + lifecycle.drain_timeout_s


def test_grafana_shows_our_dashboards_read_only() -> None:
    grafana = compose().services["grafana"]
    assert grafana.environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    mounts = dict(volume.split(":")[:2] for volume in grafana.volumes)
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    folder, _, dashboard = grafana.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].rpartition("/")
    assert mounts["./deploy/grafana/dashboards"] == folder
    assert (ROOT / "deploy/grafana/dashboards" / dashboard).exists()
    (provider,) = yaml.safe_load(next((ROOT / "deploy/grafana/provisioning/dashboards").glob("*.yml")).read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == folder
    (source,) = yaml.safe_load(next((ROOT / "deploy/grafana/provisioning/datasources").glob("*.yml")).read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
