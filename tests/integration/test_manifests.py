"""What the manifests run, run here: the init container's command, then the service with the rendered ConfigMap."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.container import Volumes, run, running
from tests.integration.process import READY_S, wait_until
from tests.unit.deploy.manifests import config, pod, serving

DRAIN_DELAY_S: Final = 2
"""In place of the manifest's ten, which nobody here needs to wait for."""
KEY: Final = "3f9c0d2b7f6e4a1c8d5e"
QUESTION: Final = {"model": "electra", "text": "Hello, world!", "outputs": ["mean_output"]}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volumes]:
    root = tmp_path_factory.mktemp("pod")
    yield Volumes(root)
    for path in (root, *root.rglob("*")):  # so that pytest can take them away again
        path.chmod(0o755)


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
    assert "is there already" in run(filled, init, "electra_demo")


def test_the_init_container_of_cpus_takes_any_preset(tmp_path: Path) -> None:
    (init,) = pod("overlays/cpu")["initContainers"]
    assert "written" in run(Volumes(tmp_path), init, "electra_demo")
    assert (tmp_path / "models/served/model.xml").exists()


def test_the_pod_answers_and_leaves_in_good_order(filled: Volumes) -> None:
    with running(filled, serving("base"), ELECTRA_LIFECYCLE__DRAIN_DELAY_S=str(DRAIN_DELAY_S)) as (process, ports):
        wait_ready(process, ports, filled)
        assert_answers(ports)
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not serves(ports), timeout_s=DRAIN_DELAY_S)
        unready_s = time.monotonic() - began_s
        assert encode(ports, KEY).status_code == 200  # callers who have not heard of it yet
        assert status(ports, "metrics", "/readyz") == 503
        assert process.wait(pod("base")["terminationGracePeriodSeconds"]) == 0
        print(f"not serving after {unready_s:.2f} s, gone after {time.monotonic() - began_s:.2f} s")  # noqa: T201


def test_the_runtime_of_kserve_serves_what_is_mounted(filled: Volumes) -> None:
    (filled.root / "mnt").mkdir()
    (filled.root / "mnt/models").symlink_to(filled.root / "models/served")
    with running(filled, serving("overlays/kserve")) as (process, ports):
        wait_ready(process, ports, filled)
        assert encode(ports, None).status_code == 200


def assert_answers(ports: Mapping[str, int]) -> None:
    """On the ports that the manifest says, and to nobody without a key."""
    assert serves(ports)
    assert status(ports, "metrics", "/livez") == 200
    assert status(ports, "metrics", "/metrics") == 200
    assert status(ports, "rest", "/metrics") == 404
    assert encode(ports, None).status_code == 401
    assert encode(ports, KEY).status_code == 200


def wait_ready(process: subprocess.Popen[bytes], ports: Mapping[str, int], volumes: Volumes) -> None:
    """What the startup probe waits for."""

    def ready() -> bool:
        assert process.poll() is None, (volumes.root / "log").read_text()
        return status(ports, "metrics", "/readyz") == 200

    wait_until(ready, READY_S)


def serves(ports: Mapping[str, int]) -> bool:
    """What the readiness probe asks."""
    with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def status(ports: Mapping[str, int], name: str, path: str) -> int | None:
    try:
        return httpx.get(f"http://127.0.0.1:{ports[name]}{path}", timeout=5).status_code
    except httpx.TransportError:
        return None


def encode(ports: Mapping[str, int], key: str | None) -> httpx.Response:
    headers = {} if key is None else {"x-api-key": key}
    return httpx.post(f"http://127.0.0.1:{ports['rest']}/v1/encode", json=QUESTION, headers=headers, timeout=30)
