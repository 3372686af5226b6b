"""Every overlay builds, and what comes out is what Kubernetes and the operators take."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.deploy.manifests import DEPLOYING, OVERLAYS, Manifest, manifests, of_kind, one, pod
from tests.integration.deploy.schemas import complaints

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@each_overlay
def test_it_is_valid(overlay: str) -> None:
    found = {
        f"{manifest['kind']}: {complaint}" for manifest in manifests(overlay) for complaint in complaints(manifest)
    }
    assert found == set()


@pytest.mark.parametrize(
    ("overlay", "kind", "path", "value"),
    [
        ("base", "Deployment", "spec.template.spec.terminationGracePeriodSecond", 55),
        ("base", "Deployment", "spec.replicas", "two"),
        ("base", "NetworkPolicy", "spec.policyTypes", "Egress"),
        ("overlays/autoscaling", "HorizontalPodAutoscaler", "spec.minReplica", 2),
        ("overlays/autoscaling-keda", "ScaledObject", "spec.minReplicas", 2),
        ("overlays/monitoring", "ServiceMonitor", "spec.endpoint", []),
        ("overlays/monitoring", "PrometheusRule", "spec.groups", {}),
        ("overlays/encode", "Job", "spec.backoffLimitPerIndexes", 1),
        (
            "overlays/encode",
            "Job",
            "spec.podFailurePolicy.rules",
            [{"action": "FailIndex", "onExitCodes": {"in": [3]}}],
        ),
        ("overlays/kserve", "ServingRuntime", "spec.supportedModelFormat", []),
        ("overlays/kserve", "InferenceService", "spec.predictor.model.storageURI", "s3://models"),
    ],
)
def test_mistakes_are_seen(overlay: str, kind: str, path: str, value: object) -> None:
    broken = copy.deepcopy(one(overlay, kind))
    *parents, field = path.split(".")
    place = broken
    for name in parents:
        place = place[name]
    place[field] = value
    assert complaints(broken) != []


@each_overlay
def test_names_of_settings_follow_their_content(overlay: str) -> None:
    mounted = {volume["configMap"]["name"] for volume in pod(overlay).get("volumes", []) if "configMap" in volume}
    made = {found["metadata"]["name"] for found in of_kind(overlay, "ConfigMap") if "config.yaml" in found["data"]}
    assert mounted == made
    assert all(name.startswith("electra-serve-") for name in made)


@pytest.mark.parametrize("overlay", DEPLOYING)
def test_every_selector_finds_the_pods(overlay: str) -> None:
    labels = one(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = list(_selectors(overlay))
    assert len(selectors) >= 5
    assert [selector for selector in selectors if not selector or not selector.items() <= labels.items()] == []


def _selectors(overlay: str) -> Iterator[Manifest]:
    for service in of_kind(overlay, "Service"):
        yield service["spec"]["selector"]
    for policy in of_kind(overlay, "NetworkPolicy"):
        yield policy["spec"]["podSelector"]["matchLabels"]
    yield one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    yield one(overlay, "Deployment")["spec"]["selector"]["matchLabels"]
    for spread in pod(overlay)["topologySpreadConstraints"]:
        yield spread["labelSelector"]["matchLabels"]


@pytest.mark.parametrize("overlay", ["overlays/autoscaling", "overlays/autoscaling-keda"])
def test_an_autoscaler_alone_says_how_many(overlay: str) -> None:
    assert "replicas" not in one(overlay, "Deployment")["spec"]


def test_the_monitor_finds_the_service_and_names_the_job_as_the_alerts_do() -> None:
    spec = one("overlays/monitoring", "ServiceMonitor")["spec"]
    wanted = spec["selector"]["matchLabels"]
    (service,) = (
        found
        for found in of_kind("overlays/monitoring", "Service")
        if wanted.items() <= found["metadata"]["labels"].items()
    )
    ports: list[Any] = [port["name"] for port in service["spec"]["ports"]]
    assert [endpoint["port"] for endpoint in spec["endpoints"] if endpoint["port"] not in ports] == []
    assert service["metadata"]["labels"][spec["jobLabel"]] == "electra-serve"
