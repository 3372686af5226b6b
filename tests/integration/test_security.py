"""Keys and TLS as a user sets them up: the real process, over real sockets, on both transports."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from electra_serve.client import ElectraClient, GrpcElectraClient, RetryPolicy, Tls
from electra_serve.client.base import SyncClient
from electra_serve.errors import Unauthenticated
from tests.certificates import Authority
from tests.integration.process import ROOT, ServiceProcess, start
from tests.waiting import wait_until

HOST: Final = "127.0.0.1"
OLD, NEW = "shop-0123456789abcdef", "shop-fedcba9876543210"
ONCE: Final = RetryPolicy(max_attempts=1)
NOTICED_S: Final = 10.0
"""A key file is looked at once a second; a busy machine may take longer."""


@dataclass(frozen=True)
class Secured:
    """A process with keys and certificates, and what a client of it needs."""

    process: ServiceProcess
    keys: Path
    tls: Tls
    flags: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.process.rest_port}"

    def clients(self, key: str | None) -> tuple[SyncClient, SyncClient]:
        return (
            ElectraClient(self.url, retry=ONCE, api_key=key, tls=self.tls),
            GrpcElectraClient(self.process.target, retry=ONCE, api_key=key, tls=self.tls),
        )

    def accepts(self, key: str | None) -> list[bool]:
        """Returns, for each transport, True if it serves a client with this key."""
        return [self._serves(client) for client in self.clients(key)]

    @staticmethod
    def _serves(client: SyncClient) -> bool:
        with client:
            try:
                return client.encode(text=["a"], outputs=["mean_output"]).mean_output is not None
            except Unauthenticated:
                return False


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A process whose keys do not change."""
    with _start_secured(tmp_path_factory.mktemp("secured")) as started:
        yield started


@pytest.fixture
def disposable(tmp_path: Path) -> Iterator[Secured]:
    """A process of its own, for a test that changes its keys or ends it."""
    with _start_secured(tmp_path) as started:
        yield started


@contextmanager
def _start_secured(folder: Path) -> Iterator[Secured]:
    authority = Authority(folder)
    certificate, key = authority.issue("server", HOST)
    keys = folder / "keys"
    keys.write_text(f"shop:{OLD}\n")
    flags = (f"--security.tls_certificate={certificate}", f"--security.tls_key={key}")
    with start(folder, *flags, f"--security.api_keys_file={keys}", "--log.format=json") as process:
        secured = Secured(process, keys, Tls(authority.file), flags)
        with httpx.Client(verify=secured.tls.context()) as plain:
            wait_until(lambda: _ready(process, plain, secured.url), 120)
        yield secured


def _ready(process: ServiceProcess, plain: httpx.Client, url: str) -> bool:
    assert process.popen.poll() is None, process.stderr
    try:
        return plain.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_key_is_needed_and_probes_are_open(secured: Secured) -> None:
    assert secured.accepts(OLD) == [True, True]
    for key in (None, NEW):
        assert secured.accepts(key) == [False, False]
    with httpx.Client(verify=secured.tls.context()) as plain:
        for path in ("/livez", "/readyz", "/metrics", "/openapi.json"):
            assert plain.get(secured.url + path).status_code == 200
        rejection = plain.post(f"{secured.url}/v1/encode", json={"text": "a"})
    assert (rejection.status_code, rejection.headers["www-authenticate"]) == (401, "Bearer")


def test_the_health_check_and_the_announcement_speak_tls(secured: Secured) -> None:
    command = [sys.executable, "-m", "electra_serve", "healthcheck", f"--rest.port={secured.process.rest_port}"]
    assert subprocess.run([*command, *secured.flags], cwd=ROOT, timeout=60).returncode == 0
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == 1  # in plain HTTP
    assert f"curl -s --cacert CA_FILE -H 'authorization: Bearer YOUR_KEY' {secured.url}/v1/encode" in (
        secured.process.stdout
    )


def test_a_key_comes_and_another_goes_without_a_restart(disposable: Secured) -> None:
    disposable.keys.with_name("next").write_text(f"shop:{OLD}\nshop:{NEW}\n")
    disposable.keys.with_name("next").rename(disposable.keys)
    wait_until(lambda: disposable.accepts(NEW) == [True, True], NOTICED_S)
    assert disposable.accepts(OLD) == [True, True]

    disposable.keys.write_text(f"shop:{NEW}\n")  # in place, as an editor does
    wait_until(lambda: disposable.accepts(OLD) == [False, False], NOTICED_S)
    disposable.keys.write_text("")
    time.sleep(2.5)  # twice as long as a change takes to be seen
    assert disposable.accepts(NEW) == [True, True]

    log = disposable.process.stderr
    assert '"event":"files reloaded"' in log
    assert not any(key in log for key in (OLD, NEW))


def test_a_failed_handshake_affects_no_client_and_logs_nothing(secured: Secured) -> None:
    for port in (secured.process.rest_port, secured.process.grpc_port):
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05evil!", b""):
            with socket.create_connection((HOST, port), timeout=10) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                _read_to_the_end(connection)
    assert secured.accepts(OLD) == [True, True]
    assert secured.process.complaints == []


def _read_to_the_end(connection: socket.socket) -> None:
    try:
        while connection.recv(4096):
            pass
    except OSError:
        pass


def test_no_key_is_in_the_log(secured: Secured) -> None:
    assert secured.accepts(OLD) == [True, True]
    assert secured.accepts(NEW) == [False, False]
    wait_until(lambda: '"code":"unauthenticated"' in secured.process.stderr)
    written = secured.process.stderr + secured.process.stdout
    assert not any(key in written for key in (OLD, NEW))


def test_a_drain_ends_tls_connections_too(disposable: Secured) -> None:
    rest, grpc = disposable.clients(OLD)
    with rest, grpc:
        for client in (rest, grpc):
            client.encode(text=["a"])
        disposable.process.terminate()
        assert disposable.process.wait(20) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--security.api_keys_file=/does/not/exist"], "API key file /does/not/exist cannot be read"),
        (["--security.tls_certificate=/does/not/exist"], "tls_certificate and tls_key must be set together"),
        (["--security.tls_client_ca=/does/not/exist"], "tls_client_ca needs tls_certificate"),
    ],
)
def test_what_cannot_be_used_ends_the_start_in_one_line(tmp_path: Path, flags: list[str], message: str) -> None:
    with start(tmp_path, *flags) as process:
        assert process.wait() == 1
        assert message in process.stderr
        assert process.stderr.count("\n") == 1
