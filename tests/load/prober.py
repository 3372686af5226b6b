"""Probes as an orchestrator sends them, and what they answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Final, Self

import grpc
import httpx

from tests.integration.standard import health_of

PERIOD_S: Final = 0.05


class Prober:
    """Asks `/livez`, `/readyz` and gRPC's health in turn until it is left.

    Args:
        url: Where REST is.
        target: Where gRPC is.

    Attributes:
        answers: How often each probe answered what.
        slowest_s: The longest that a round of probes took.
    """

    def __init__(self, url: str, target: str) -> None:
        self._url = url
        self._target = target
        self._stopping = threading.Event()
        self.answers: Counter[tuple[str, str]] = Counter()
        self.slowest_s = 0.0
        self._thread = threading.Thread(target=self._probe, name="prober")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _probe(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client, grpc.insecure_channel(self._target) as channel:
            while not self._stopping.wait(PERIOD_S):
                asked_at = time.monotonic()
                for path in ("/livez", "/readyz"):
                    self.answers[path, str(client.get(path).status_code)] += 1
                self.answers["grpc", health_of(channel)] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - asked_at)
