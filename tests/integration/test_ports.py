"""Admin and metrics on ports of their own, from the first second of the real process to its last."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from electra_serve.presets.catalog import DEMO_ID
from tests.integration.process import ServiceProcess, free_port, start
from tests.waiting import wait_until

KEY: Final = "0123456789abcdef0123456789abcdef"
HEADERS: Final = {"x-api-key": KEY}
MODELS: Final = "/admin/v1/models"
HALF_A_REQUEST: Final = (
    b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
)
IN_FLIGHT: Final = 'electra_requests_in_flight{transport="rest"} 1.0'


@dataclass(frozen=True, slots=True)
class Ports:
    """The process, and its other two ports."""

    process: ServiceProcess
    admin: str
    metrics: str

    def get(self, url: str, **headers: str) -> httpx.Response:
        return httpx.get(url, headers=headers, timeout=60)


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    keys = tmp_path / "keys"
    keys.write_text(f"operator:{KEY}\n")
    admin, metrics = free_port(), free_port()
    flags = (f"--admin.port={admin}", f"--admin.keys_file={keys}", f"--metrics.port={metrics}", "--log.format=json")
    with start(tmp_path, *flags) as process:
        process.wait_live()
        yield Ports(process, f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{metrics}")


def test_each_port_serves_its_own_from_start_to_end(ports: Ports) -> None:
    assert ports.get(f"{ports.metrics}/livez").status_code == 200  # with or without the model
    assert ports.get(f"{ports.admin}{MODELS}", **HEADERS).status_code == 200
    ports.process.wait_ready()

    assert ports.process.status("/metrics") == 404
    assert ports.process.status("/livez") == 200
    assert ports.process.status(MODELS) == 404
    assert ports.get(f"{ports.metrics}{MODELS}", **HEADERS).status_code == 404
    assert ports.get(f"{ports.admin}/metrics", **HEADERS).status_code == 404
    assert ports.get(f"{ports.metrics}/readyz").status_code == 200
    assert ports.get(f"{ports.admin}{MODELS}").status_code == 401
    (model,) = ports.get(f"{ports.admin}{MODELS}", **HEADERS).json()["models"]
    assert (model["name"], model["state"], model["change"]) == (DEMO_ID, "ready", None)

    with socket.create_connection(("127.0.0.1", ports.process.rest_port)) as slow:
        slow.sendall(HALF_A_REQUEST)
        wait_until(lambda: IN_FLIGHT in ports.get(f"{ports.metrics}/metrics").text)
        ports.process.terminate()
        wait_until(lambda: ports.process.status("/livez") is None)
        assert_alive_while_draining(ports)
    assert ports.process.wait() == 0
    assert ports.process.complaints == []


def assert_alive_while_draining(ports: Ports) -> None:
    """Fails unless the other ports still respond: one with metrics, the other with a rejection of changes."""
    assert IN_FLIGHT in ports.get(f"{ports.metrics}/metrics").text
    assert ports.get(f"{ports.metrics}/readyz").status_code == 503
    rejection = httpx.post(f"{ports.admin}{MODELS}/{DEMO_ID}/reload", headers=HEADERS, timeout=60)
    assert (rejection.status_code, rejection.json()["code"]) == (503, "shutting_down")
    assert ports.get(f"{ports.admin}{MODELS}", **HEADERS).status_code == 200
    assert ports.process.popen.poll() is None


def test_models_cannot_change_while_the_first_are_loading(tmp_path: Path) -> None:
    slow = '{"preset": "electra_large_discriminator_uncased_en", "load_weights": false}'
    admin = free_port()
    flags = (f"--models={slow}", f"--admin.port={admin}", "--admin.without_keys=true", "--log.format=json")
    with start(tmp_path, *flags) as process:
        process.wait_live()
        response = httpx.post(f"http://127.0.0.1:{admin}{MODELS}", json={"preset": DEMO_ID}, timeout=60)
        assert (response.status_code, response.json()["code"]) == (503, "model_not_ready")
        process.terminate()
        assert process.wait() == 0
        assert process.complaints == []
