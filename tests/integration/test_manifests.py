"""Runs the commands of the manifests: the init container's, then the service with the rendered ConfigMap."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.integration.container import Running, Volumes, run, running
from tests.integration.deploy.manifests import config, kserve_container, pod, serving
from tests.integration.process import READY_S
from tests.waiting import wait_until

DRAIN_DELAY_S: Final = 2
"""Replaces the manifest's ten, which these tests need not wait for."""
KEY: Final = "3f9c0d2b7f6e4a1c8d5e"
QUESTION: Final = {"text": "Hello, world!", "outputs": ["mean_output"]}
SERVED: Final = "sentences"
"""Name of an InferenceService."""


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volumes]:
    root = tmp_path_factory.mktemp("pod")
    yield (volumes := Volumes(root))
    volumes.unseal()


@pytest.fixture(scope="module")
def filled(volumes: Volumes) -> Volumes:
    """After the base's init container, with the ConfigMap and the Secret mounted."""
    (init,) = pod("base")["initContainers"]
    assert "written" in run(volumes, init, "electra_demo")
    for folder, name, text in (
        ("config", "config.yaml", volumes.place(config("base"))),
        ("keys", "api-keys", f"shop:{KEY}\n"),
    ):
        (volumes.root / folder).mkdir()
        (volumes.root / folder / name).write_text(text)
    return volumes


def test_an_init_container_that_runs_again_changes_nothing(filled: Volumes) -> None:
    (init,) = pod("base")["initContainers"]
    assert "exists already" in run(filled, init, "electra_demo")


def test_the_init_container_of_cpus_takes_any_preset(tmp_path: Path) -> None:
    (init,) = pod("overlays/cpu")["initContainers"]
    assert "written" in run(Volumes(tmp_path), init, "electra_demo")
    assert (tmp_path / "models/served/model.xml").exists()


def test_the_pod_serves_and_ends_in_good_order(filled: Volumes) -> None:
    with running(filled, serving("base"), ELECTRA_LIFECYCLE__DRAIN_DELAY_S=str(DRAIN_DELAY_S)) as container:
        container.wait_started()
        assert_serves(container)
        began_s = time.monotonic()
        container.process.send_signal(signal.SIGTERM)
        wait_until(lambda: container.health() == "NOT_SERVING", timeout_s=DRAIN_DELAY_S)
        unready_s = time.monotonic() - began_s
        assert encode(container, KEY) == 200  # clients that do not know of the drain yet
        assert container.status("metrics", "/readyz") == 503
        assert container.process.wait(pod("base")["terminationGracePeriodSeconds"]) == 0
        print(f"not serving after {unready_s:.2f} s, gone after {time.monotonic() - began_s:.2f} s")  # noqa: T201


def test_the_runtime_of_kserve_serves_what_is_mounted(filled: Volumes) -> None:
    (filled.root / "mnt").mkdir()
    (filled.root / "mnt/models").symlink_to(filled.root / "models/served")
    manifest = kserve_container(SERVED)
    with running(filled, manifest, ELECTRA_LIFECYCLE__DRAIN_DELAY_S=str(DRAIN_DELAY_S)) as container:
        wait_until(lambda: container.probe(manifest, "startupProbe") == 200, READY_S)
        assert [container.probe(manifest, kind) for kind in ("readinessProbe", "livenessProbe")] == [200, 200]
        assert container.status("rest", f"/v2/models/{SERVED}/ready") == 200
        assert container.status("rest", "/v2/models/electra/ready") == 404  # that is another InferenceService's
        assert infer(container) == 200
        assert encode(container, None, SERVED) == 200
        container.process.send_signal(signal.SIGTERM)
        wait_until(lambda: container.probe(manifest, "readinessProbe") == 503, DRAIN_DELAY_S)
        assert container.probe(manifest, "livenessProbe") == 200
        assert infer(container) == 200  # clients that do not know of the drain yet
        assert container.process.wait(pod("base")["terminationGracePeriodSeconds"]) == 0


def infer(container: Running) -> int:
    """The status of a request by the Open Inference Protocol."""
    url = f"http://127.0.0.1:{container.ports['rest']}/v2/models/{SERVED}/infer"
    body = {
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["Hello, world!"]}],
        "outputs": [{"name": "mean_output"}],
    }
    return httpx.post(url, json=body, timeout=30).status_code


def assert_serves(container: Running) -> None:
    """On the ports of the manifest, and only with a key."""
    assert container.health() == "SERVING"
    assert container.status("metrics", "/livez") == 200
    assert container.status("metrics", "/metrics") == 200
    assert container.status("rest", "/metrics") == 404
    assert encode(container, None) == 401
    assert encode(container, KEY) == 200


def encode(container: Running, key: str | None, model: str = "electra") -> int:
    """The status of a question to the model by its name."""
    headers = {} if key is None else {"x-api-key": key}
    url = f"http://127.0.0.1:{container.ports['rest']}/v1/encode"
    return httpx.post(url, json={**QUESTION, "model": model}, headers=headers, timeout=30).status_code
