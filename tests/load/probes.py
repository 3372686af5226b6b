"""Probes of a service under load, as Kubernetes sends them: liveness, readiness and gRPC's health."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Self

import grpc
import httpx

from tests.integration.process import ServiceProcess
from tests.integration.standard import health_of

EVERY_S: Final = 0.1
PATIENCE_S: Final = 5.0


class Probes:
    """Sends all three in turn from a thread, for as long as the context lasts.

    Attributes:
        failures: Descriptions of failed probes.
        seconds: Durations of all probes.
    """

    def __init__(self, process: ServiceProcess) -> None:
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probes")
        self.failures: list[str] = []
        self.seconds: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def slowest_s(self) -> float:
        """Duration of the slowest probe."""
        return max(self.seconds, default=0.0)

    def _run(self) -> None:
        with (
            httpx.Client(base_url=self._process.url, timeout=PATIENCE_S) as client,
            grpc.insecure_channel(self._process.target) as channel,
        ):
            while not self._ended.wait(EVERY_S):
                for path in ("/livez", "/readyz"):
                    self._ask(path, lambda path=path: str(client.get(path).status_code), "200")  # type: ignore[misc]
                self._ask("health", lambda: health_of(channel), "SERVING")

    def _ask(self, name: str, probe: Callable[[], str], well: str) -> None:
        began = time.monotonic()
        try:
            said = probe()
        except (httpx.TransportError, grpc.RpcError) as error:
            said = type(error).__name__
        self.seconds.append(time.monotonic() - began)
        if said != well:
            self.failures.append(f"{name}: {said}")
