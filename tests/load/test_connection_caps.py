"""More connections than one client should have: silent, greeted, or in the middle of a request.

Both transports are limited, TLS handshakes included. Probes, metrics and other clients get responses meanwhile, on few
descriptors too, and SIGTERM ends the process as usual.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Final

import httpx
import pytest

from benchmarks.stand_in.script import Script
from electra_serve.api.connections import surplus_of
from electra_serve.client import ElectraClient, GrpcElectraClient, Tls
from electra_serve.runtime.file_limit import fit_connections, raise_descriptor_limit
from electra_serve.server.lifecycle import EXIT_OK
from electra_serve.settings.schema import GrpcSettings, RestSettings
from tests.certificates import Authority
from tests.integration.process import ServiceProcess, free_port, start
from tests.load.conftest import Report
from tests.load.gauges import gauge
from tests.load.growth import descriptors, resident_bytes
from tests.load.http2 import GREETING
from tests.load.stand_in import MODULE
from tests.waiting import wait_until

HOST: Final = "127.0.0.1"
HOSTILE: Final = "127.0.0.3"
MAX_GROWTH_BYTES: Final = 400_000_000
DESCRIPTORS: Final = 512
ATTACK: Final = 600
"""Connections to each transport: more than the descriptors."""
LONG_ATTACK: Final = 12_000
PROBES: Final = ("/livez", "/readyz", "/metrics")
SILENCE: Final = b""
HALF_A_BODY: Final = b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"
PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """A process under attack.

    Attributes:
        process: The process.
        metrics_port: Its port for metrics, which has no TLS.
        tls: What its clients need; None: it has no TLS.
    """

    process: ServiceProcess
    metrics_port: int
    tls: Tls | None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{HOST}:{self.process.rest_port}"

    @property
    def resident_bytes(self) -> float:
        return resident_bytes(self.process)

    @property
    def descriptors(self) -> float:
        return descriptors(self.process)

    def scrape(self) -> str:
        """`/metrics`, on its own port."""
        return httpx.get(f"http://{HOST}:{self.metrics_port}/metrics", timeout=PATIENCE_S).text

    def connections(self, server: str) -> float:
        """The gauge of open connections."""
        return gauge(self.scrape(), f'electra_connections{{server="{server}"}}')

    def actions(self, server: str) -> float:
        """Connections over the limit so far."""
        lines = (line for line in self.scrape().splitlines() if line.startswith("electra_connection_limit_total{"))
        return sum(float(line.rpartition(" ")[2]) for line in lines if f'server="{server}"' in line)

    def check_probes(self) -> None:
        """Checks that each probe responds, on both ports, on a connection of its own."""
        verify: ssl.SSLContext | bool = self.tls.context() if self.tls else True
        for path in PROBES:
            assert httpx.get(f"http://{HOST}:{self.metrics_port}{path}", timeout=PATIENCE_S).status_code == 200
        for path in PROBES[:2]:
            assert httpx.get(f"{self.url}{path}", timeout=PATIENCE_S, verify=verify).status_code == 200

    def check_clients(self) -> None:
        """Checks that an ordinary client gets its responses, on both transports."""
        for client in (
            ElectraClient(self.url, tls=self.tls),
            GrpcElectraClient(self.process.target, tls=self.tls),
        ):
            with client:
                assert client.encode(text=["a"], outputs=["mean_output"]).mean_output is not None


@contextmanager
def serve(folder: Path, *flags: str, secured: bool, descriptors: int = 0) -> Iterator[Target]:
    """Starts a service with a port for metrics and, if `secured`, with TLS.

    Args:
        folder: For what it writes.
        flags: Further flags.
        secured: It has TLS.
        descriptors: Most files and connections of the process; 0: as many as this one.
    """
    metrics_port, authority = free_port(), Authority(folder)
    certificate, key = authority.issue("server", HOST)
    tls_flags = (f"--security.tls_certificate={certificate}", f"--security.tls_key={key}") if secured else ()
    with start(
        folder,
        "--log.format=json",
        f"--metrics.port={metrics_port}",
        *tls_flags,
        *flags,
        environment=Script().environment,
        module=MODULE,
        prefix=("prlimit", f"--nofile={descriptors}") if descriptors else (),
    ) as process:
        target = Target(process, metrics_port, Tls(ca_file=authority.file) if secured else None)
        wait_until(lambda: _is_ready(target))
        yield target


def _is_ready(target: Target) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://{HOST}:{target.metrics_port}/readyz").status_code == 200
    return False


@contextmanager
def attack(port: int, number: int, begun: bytes) -> Iterator[None]:
    """Holds as many connections to a port as the server allows, and sends `begun` on each."""
    with ExitStack() as stack:
        for _ in range(number):
            with suppress(ConnectionError):
                connection = stack.enter_context(
                    socket.create_connection((HOST, port), timeout=PATIENCE_S, source_address=(HOSTILE, 0))
                )
                connection.sendall(begun)
        yield


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_both_transports_are_limited_on_few_descriptors(secured: bool, tmp_path: Path, report: Report) -> None:
    rest_limit, grpc_limit = fit_connections(
        DESCRIPTORS, (RestSettings().max_connections, GrpcSettings().max_connections)
    )
    with serve(tmp_path, secured=secured, descriptors=DESCRIPTORS) as target:
        before = target.resident_bytes
        target.check_clients()
        with (
            attack(target.process.rest_port, ATTACK, SILENCE),
            attack(target.process.grpc_port, ATTACK, SILENCE if secured else GREETING),
        ):
            target.check_probes()
            wait_until(lambda: target.connections("grpc") <= grpc_limit / 2)
            target.check_clients()
            assert target.connections("rest") <= rest_limit + surplus_of(rest_limit)
            assert target.descriptors < DESCRIPTORS
            assert target.actions("rest") >= ATTACK - rest_limit
            assert target.actions("grpc") > 0
            grown = target.resident_bytes - before
            assert grown < MAX_GROWTH_BYTES
        wait_until(lambda: target.connections("rest") + target.connections("grpc") < 4)
        target.check_probes()
        target.check_clients()
        full = [event for event in target.process.events if event["event"] == "connections full"]
        assert {event["server"] for event in full} == {"rest", "grpc"}
        assert len(full) < 10
        lowered = [event for event in target.process.events if event["event"] == "connection limits lowered"]
        assert [(event["rest"], event["grpc"]) for event in lowered] == [(rest_limit, grpc_limit)]
        with attack(target.process.rest_port, ATTACK, SILENCE), attack(target.process.grpc_port, ATTACK, SILENCE):
            target.process.terminate()
            assert target.process.wait() == EXIT_OK
        assert target.process.complaints == []
    report(f"{2 * ATTACK} connections on {DESCRIPTORS} descriptors: +{grown / 1e6:.0f} MB, probes and clients served")


def test_requests_that_never_end_keep_no_other_address_out(tmp_path: Path) -> None:
    """Without an idle connection to close, one of the address that holds most of them closes."""
    limit = 64
    with serve(
        tmp_path,
        f"--rest.max_connections={limit}",
        "--rest.body_timeout_s=60",
        "--lifecycle.drain_timeout_s=3",
        secured=False,
    ) as target:
        with attack(target.process.rest_port, 2 * limit, HALF_A_BODY):
            wait_until(lambda: target.connections("rest") >= limit)
            target.check_probes()
            target.check_clients()
            exposition = target.scrape()
        action = 'electra_connection_limit_total{{action="{}",server="rest"}}'
        assert gauge(exposition, action.format("closed_receiving")) >= 1
        assert gauge(exposition, action.format("over_limit")) >= 1, "the attacker itself gets 503"
        target.process.terminate()
        assert target.process.wait() == EXIT_OK


@pytest.mark.long
@pytest.mark.parametrize("server", ["rest", "grpc"])
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_thousands_of_silent_connections_at_default_settings(
    secured: bool, server: str, tmp_path: Path, report: Report
) -> None:
    assert raise_descriptor_limit() > LONG_ATTACK + 500, "this process may not open as many"
    with serve(tmp_path, secured=secured) as target:
        before = target.resident_bytes
        port = target.process.rest_port if server == "rest" else target.process.grpc_port
        with attack(port, LONG_ATTACK, SILENCE):
            held = target.connections(server)
            grown = target.resident_bytes - before
            times = probe_times(target)
            target.check_clients()
            assert grown < MAX_GROWTH_BYTES
            target.process.terminate()
            assert target.process.wait() == EXIT_OK
    report(
        f"{LONG_ATTACK} silent connections: +{grown / 1e6:.0f} MB, {held:.0f} held; "
        f"/livez p50 {times[49] * 1e3:.1f} ms, p99 {times[98] * 1e3:.1f} ms"
    )
    report.promise(times[98] < 1.0, "/livez responds within a probe's default timeout")


def probe_times(target: Target) -> list[float]:
    """Seconds of 200 probes on connections of their own, as percentiles."""
    verify: ssl.SSLContext | bool = target.tls.context() if target.tls else True
    seconds = []
    for _ in range(200):
        with httpx.Client(verify=verify, timeout=PATIENCE_S) as client:
            began = time.monotonic()
            assert client.get(f"{target.url}/livez").status_code == 200
            seconds.append(time.monotonic() - began)
    return quantiles(seconds, n=100)
