"""The pods of every overlay: confined, probed on their ports, with enough time, and with existing settings."""

from __future__ import annotations

import argparse
import re
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from electra_serve.api.rest.problem_middleware import is_probe
from electra_serve.observability.metrics import Metrics
from electra_serve.settings.loader import add_flags, read_settings
from electra_serve.settings.schema import Settings
from tests.integration.deploy.manifests import (
    DEPLOYING,
    KUBERNETES,
    OVERLAYS,
    SERVING,
    config,
    kserve_container,
    of_kind,
    one,
    pod,
    serving,
)

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
each_deployment = pytest.mark.parametrize("overlay", DEPLOYING)
CLOSING_S = 5.0
"""For engines, and for the last scrape."""
SERVICE_LINKS = (
    "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP1", "SERVICE_PORT_H2C", "SERVICE_PORT_METRICS",
    "PORT", "PORT_80_TCP", "PORT_80_TCP_PROTO", "PORT_80_TCP_PORT", "PORT_80_TCP_ADDR",
)  # fmt: skip
"""Variables that Kubernetes makes of a Service."""


def settings(overlay: str) -> Settings:
    """Returns the settings of the overlay's ConfigMap, checked as the service does."""
    return Settings.model_validate(yaml.safe_load(config(overlay)))


@each_overlay
def test_it_can_do_no_more_than_it_must(overlay: str) -> None:
    spec = pod(overlay)
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        confined = spec.get("securityContext", {}) | container["securityContext"]
        assert confined["runAsNonRoot"]
        assert confined["runAsUser"] > 0
        assert confined["readOnlyRootFilesystem"]
        assert not confined["allowPrivilegeEscalation"]
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert confined["seccompProfile"] == {"type": "RuntimeDefault"}


@each_deployment
def test_it_has_no_token_and_reads_what_others_wrote(overlay: str) -> None:
    assert pod(overlay)["automountServiceAccountToken"] is False
    assert one(overlay, "ServiceAccount")["automountServiceAccountToken"] is False
    read_only = {mount["name"] for mount in serving(overlay)["volumeMounts"] if mount.get("readOnly")}
    assert read_only == {"models", "config", "keys"}


@each_overlay
def test_what_it_may_take_is_bounded_and_its_cores_are_its_own(overlay: str) -> None:
    resources = serving(overlay)["resources"]
    assert resources["requests"]["cpu"] == resources["limits"]["cpu"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert float(resources["limits"]["cpu"]).is_integer()  # a thread for each


@each_deployment
def test_it_listens_where_it_is_asked(overlay: str) -> None:
    configured = settings(overlay)
    ports = {port["name"]: port["containerPort"] for port in serving(overlay)["ports"]}
    listening = {"rest": configured.rest.port, "grpc": configured.grpc.port, "metrics": configured.metrics.port}
    assert ports == listening
    assert {configured.rest.host, configured.grpc.host, configured.metrics.host} == {"0.0.0.0"}


@each_deployment
def test_each_probe_asks_what_it_should(overlay: str) -> None:
    container, configured = serving(overlay), settings(overlay)
    assert container["startupProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}
    assert container["readinessProbe"]["grpc"] == {"port": configured.grpc.port}
    assert not configured.security.tls_certificate  # a kubelet's gRPC probe speaks none


@pytest.mark.parametrize("overlay", SERVING)
def test_a_load_has_ten_minutes(overlay: str) -> None:
    probe = serving(overlay)["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 600
    if overlay in DEPLOYING:
        deadline = one(overlay, "Deployment")["spec"]["progressDeadlineSeconds"]
        assert deadline > probe["periodSeconds"] * probe["failureThreshold"]


@each_deployment
def test_the_grace_period_outlasts_the_drain(overlay: str) -> None:
    lifecycle = settings(overlay).lifecycle
    needed_s = lifecycle.drain_delay_s + lifecycle.drain_timeout_s + CLOSING_S
    assert pod(overlay)["terminationGracePeriodSeconds"] >= needed_s
    assert lifecycle.drain_delay_s >= 5  # what endpoints take to disappear
    assert "lifecycle" not in serving(overlay)  # a preStop hook would add to it


@each_deployment
def test_a_rollout_takes_no_pod_away_before_another_is_there(overlay: str) -> None:
    strategy = one(overlay, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}
    assert one(overlay, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@each_deployment
def test_keys_are_where_the_settings_look(overlay: str) -> None:
    (mount,) = (mount["mountPath"] for mount in serving(overlay)["volumeMounts"] if mount["name"] == "keys")
    assert Path(settings(overlay).security.api_keys_file or "").parent == Path(mount)


@each_deployment
def test_what_is_served_is_on_the_volume_that_the_init_container_fills(overlay: str) -> None:
    (init,) = pod(overlay)["initContainers"]
    environment = {variable["name"]: variable["value"] for variable in init["env"]}
    (model,) = settings(overlay).models
    hub = settings(overlay).hub
    if init["args"][0] == "compile":
        assert model.preset == init["args"][2]
    else:
        assert init["args"] == ["presets", "pull", model.preset]
        assert (str(hub.cache_dir), hub.offline) == (environment["ELECTRA_HUB__CACHE_DIR"], True)


@each_deployment
def test_a_preset_of_a_hub_is_pinned(overlay: str) -> None:
    (init,) = pod(overlay)["initContainers"]
    handles = [word for word in init["args"] if "://" in word]
    assert [
        handle for handle in handles if not re.fullmatch(r"kaggle://[\w/]+/\d+|hf://[\w/]+@[0-9a-f]{40}", handle)
    ] == []


def kserve_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings in the pod of an InferenceService, which its own Service adds variables to."""
    variables: dict[str, str] = {entry["name"]: entry["value"] for entry in kserve_container(name)["env"]}
    links = {f"{name.upper().replace('-', '_')}_PREDICTOR_{end}": "80" for end in SERVICE_LINKS}
    for variable, value in (variables | links).items():
        monkeypatch.setenv(variable, value)
    parser = argparse.ArgumentParser()
    source = add_flags(parser)
    return read_settings(parser.parse_args([]), source, variables | links)


@pytest.mark.parametrize("name", ["electra", "electra-rest", "a", "model-2", "x" * 63])
def test_kserve_names_the_model_by_its_service(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (model,) = kserve_settings(name, monkeypatch).models
    assert (model.name, model.preset) == (name, "/mnt/models")
    assert kserve_container(name)["args"] == ["serve"]


def test_kserve_probes_the_protocol_on_the_port_of_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    configured, container = kserve_settings("mine", monkeypatch), kserve_container("mine")
    assert configured.apis.oip
    assert not configured.security.tls_certificate  # the probes have no scheme
    paths = {
        "startupProbe": "/v2/health/ready",
        "readinessProbe": "/v2/health/ready",
        "livenessProbe": "/v2/health/live",
    }
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": configured.rest.port}
        assert is_probe(path)  # without a key, and over the limit of connections


def test_kserve_finds_both_ports_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    configured = kserve_settings("mine", monkeypatch)
    ports = [(port["name"], port["containerPort"]) for port in kserve_container("mine")["ports"]]
    assert ports == [
        ("http1", configured.rest.port),
        ("h2c", configured.grpc.port),
        ("metrics", configured.metrics.port),
    ]
    annotations = pod("overlays/kserve")["annotations"]
    assert annotations["prometheus.kserve.io/port"] == str(configured.metrics.port)


def test_kserve_selects_the_runtime_by_format_and_protocol() -> None:
    runtime = pod("overlays/kserve")
    assert runtime["protocolVersions"] == ["v2", "grpc-v2"]
    assert runtime["multiModel"] is False
    (served,) = of_kind("overlays/kserve", "InferenceService")
    model = served["spec"]["predictor"]["model"]
    (supported,) = runtime["supportedModelFormats"]
    assert model["modelFormat"].items() <= supported.items()
    assert supported["autoSelect"] is True
    assert model["protocolVersion"] in runtime["protocolVersions"]
    assert model["runtime"] == one("overlays/kserve", "ServingRuntime")["metadata"]["name"]


def test_the_grace_period_of_kserve_outlasts_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    lifecycle = kserve_settings("mine", monkeypatch).lifecycle
    predictor = one("overlays/kserve", "InferenceService")["spec"]["predictor"]
    needed_s = lifecycle.drain_delay_s + lifecycle.drain_timeout_s + CLOSING_S
    assert predictor["terminationGracePeriodSeconds"] >= needed_s


@pytest.mark.parametrize("overlay", SERVING)
def test_no_overlay_switches_the_protocol_off(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = settings(overlay) if overlay in DEPLOYING else kserve_settings("mine", monkeypatch)
    assert configured.apis.oip


def test_a_gpu_is_asked_for_and_tolerated() -> None:
    spec, container = pod("overlays/gpu"), serving("overlays/gpu")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    (model,) = settings("overlays/gpu").models
    assert (model.engine, model.device) == ("jax", "gpu")


def test_what_it_scales_by_is_measured() -> None:
    metrics = Metrics("1")
    metrics.create_model_series("electra")
    exposed = metrics.exposition()[0].decode()
    adapter = yaml.safe_load((KUBERNETES / "components/hpa/adapter.yaml").read_text())["rules"]["custom"]
    autoscaler: list[dict[str, Any]] = one("overlays/autoscaling", "HorizontalPodAutoscaler")["spec"]["metrics"]
    triggers: list[dict[str, Any]] = one("overlays/autoscaling-keda", "ScaledObject")["spec"]["triggers"]
    assert {metric["pods"]["metric"]["name"] for metric in autoscaler} == {rule["name"]["as"] for rule in adapter}
    asked = {name for trigger in triggers for name in re.findall(r"electra_\w+", trigger["metadata"]["query"])}
    assert asked == {
        name for rule in adapter for name in re.findall(r"electra_\w+", rule["seriesQuery"] + rule["metricsQuery"])
    }
    assert "electra_engines" in asked  # a model has several engines, and each is to be busy 0.7 of its time
    assert [name for name in sorted(asked) if f"\n{name}{{" not in exposed] == []


def test_kubectl_came_with_the_development_extra() -> None:
    assert (Path(sysconfig.get_path("scripts")) / "kubectl").exists()
