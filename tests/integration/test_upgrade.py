"""Clients that offer an upgrade by default: every port ignores the offer and serves the request."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.integration.process import ServiceProcess, free_port, start

KEY: Final = "0123456789abcdef0123456789abcdef"
BODY: Final = b'{"token_ids":[[1,2,3]],"outputs":["mean_output"]}'
OFFER: Final = b"host: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
JAVA_CLIENT: Final = Path(__file__).parent / "java" / "DefaultClient.java"
CLIENT_S: Final = 120


@dataclass(frozen=True, slots=True)
class Ports:
    """A process and its other two ports."""

    process: ServiceProcess
    admin: int
    metrics: int


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    folder = tmp_path_factory.mktemp("upgrade")
    keys = folder / "keys"
    keys.write_text(f"operator:{KEY}\n")
    admin, metrics = free_port(), free_port()
    flags = (f"--admin.port={admin}", f"--admin.keys_file={keys}", f"--metrics.port={metrics}", "--log.format=json")
    with start(folder, *flags) as process:
        process.wait_ready()
        yield Ports(process, admin, metrics)


def requests(ports: Ports) -> dict[str, tuple[int, bytes, bytes]]:
    """A port, a head without framing, and a body for each kind of request."""
    json = b"content-type: application/json\r\n"
    post = b"POST /v1/encode HTTP/1.1\r\n" + json + OFFER
    reload = b"POST /admin/v1/models/electra_demo/reload HTTP/1.1\r\nx-api-key: %s\r\n" % KEY.encode()
    return {
        "encode": (ports.process.rest_port, post, BODY),
        "models": (ports.process.rest_port, b"GET /v1/models HTTP/1.1\r\n" + OFFER, b""),
        "reload": (ports.admin, reload + json + OFFER, b"{}"),
        "metrics": (ports.metrics, b"GET /metrics HTTP/1.1\r\n" + OFFER, b""),
    }


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", ["encode", "models", "reload", "metrics"])
def test_an_offer_is_ignored_on_every_port(kind: str, chunked: bool, ports: Ports) -> None:
    port, head, body = requests(ports)[kind]
    framed = b"content-length: %d\r\n\r\n%s" % (len(body), body)
    if chunked:
        chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
        framed = b"transfer-encoding: chunked\r\n\r\n%s0\r\n\r\n" % chunk
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        for _ in range(2):
            connection.sendall(head + framed)
            assert _status(connection) == 200


def test_curl_with_http2_is_served(ports: Ports) -> None:
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.run([curl, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("curl with HTTP/2 is not installed")
    url = f"{ports.process.url}/v1/encode"
    options = ["--http2", "--silent", "--show-error", "--max-time", "60", "--write-out", "%{http_code}\n"]
    done = subprocess.run(
        [curl, *options, "--json", BODY.decode(), *("--output", "/dev/null", url) * 2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["200"] * 2


def test_the_client_of_a_jdk_is_served(ports: Ports) -> None:
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None:
        pytest.skip("no JDK is installed")
    done = subprocess.run(
        [java, str(JAVA_CLIENT), f"{ports.process.url}/v1/encode", BODY.decode()],
        capture_output=True,
        text=True,
        timeout=CLIENT_S,
    )
    assert done.stdout.split() == ["200"] * 3, done.stderr


def test_offers_leave_no_complaint(ports: Ports) -> None:
    assert ports.process.complaints == []
    assert httpx.get(f"{ports.process.url}/livez").status_code == 200


def _status(connection: socket.socket) -> int:
    with connection.makefile("rb") as response:
        status = int(response.readline().split()[1])
        length = 0
        while (line := response.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
        response.read(length)
    return status
