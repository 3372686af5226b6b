"""Requests of 2,048 texts to `/v1/embeddings`: their time, and the times of another client meanwhile."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest

from tests.integration.process import ROOT, ServiceProcess, start
from tests.load.conftest import Report

TEXTS: Final = 2048
PART: Final = 32
AT_ONCE: Final = 4
LARGE_KEY: Final = "large-key-0123456789"
OTHER_KEY: Final = "other-key-0123456789"
EVERY_S: Final = 0.01
RATIO: Final = 1.1
P99_RATIO: Final = 2.0
ROUNDS: Final = [pytest.param(1, id="short"), pytest.param(7, id="long", marks=pytest.mark.long)]


@contextmanager
def served(folder: Path, preset: str = "electra_demo") -> Iterator[ServiceProcess]:
    """Starts the real service with one model and two clients."""
    keys = folder / "keys"
    keys.write_text(f"large:{LARGE_KEY}\nother:{OTHER_KEY}\n")
    models = [{"preset": preset, "name": "encoder", "dtype": "float32"}]
    flags = (f"--models={json.dumps(models)}", f"--security.api_keys_file={keys}")
    with start(folder, "--log.format=json", "--log.requests=false", *flags) as process:
        process.wait_ready()
        yield process


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServiceProcess]:
    with served(tmp_path) as started:
        yield started


@dataclass(frozen=True, slots=True)
class Client:
    """A client with connections of its own."""

    connections: httpx.Client

    def embed(self, texts: Sequence[str]) -> int:
        """Returns the number of vectors."""
        body = {"model": "encoder", "input": texts, "encoding_format": "base64"}
        response = self.connections.post("/v1/embeddings", json=body)
        assert response.status_code == 200, response.text
        return len(response.json()["data"])

    def embed_in_parts(self, texts: Sequence[str], at_once: int) -> int:
        """Embeds texts by requests of `PART`, some at once."""
        parts = [texts[first : first + PART] for first in range(0, len(texts), PART)]
        with ThreadPoolExecutor(at_once) as threads:
            return sum(threads.map(self.embed, parts))


@contextmanager
def client_of(process: ServiceProcess, key: str) -> Iterator[Client]:
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=process.url, headers=headers, timeout=120) as connections:
        yield Client(connections)


def sentences(amount: int = TEXTS) -> list[str]:
    """Sentences of a book, each another."""
    words = (ROOT / "tools" / "demo_preset" / "books" / "alice_in_wonderland.txt").read_text(encoding="utf-8").split()
    return [" ".join(words[(first * 11) % (len(words) - 20) :][: 6 + first % 13]) for first in range(amount)]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of the same texts: in one request, and in requests of `PART`."""

    one: Sequence[float]
    one_after_another: Sequence[float]
    some_at_once: Sequence[float]

    def ratio(self, others: Sequence[float]) -> float:
        """The median of the ratios of neighboring rounds."""
        return statistics.median(one / other for one, other in zip(self.one, others, strict=True))

    def __str__(self) -> str:
        medians = [statistics.median(times) for times in (self.one, self.one_after_another, self.some_at_once)]
        return (
            f"one request {medians[0]:.2f} s, parts one after another {medians[1]:.2f} s (ratio "
            f"{self.ratio(self.one_after_another):.2f}), {AT_ONCE} at once {medians[2]:.2f} s (ratio "
            f"{self.ratio(self.some_at_once):.2f})"
        )


def measure_times(client: Client, rounds: int) -> Times:
    """Measures each way in turn."""
    texts = sentences()
    client.embed(texts[:PART])
    taken: tuple[list[float], ...] = ([], [], [])
    for _ in range(rounds):
        for way, times in enumerate(taken):
            began = time.perf_counter()
            found = client.embed(texts) if way == 0 else client.embed_in_parts(texts, (1, AT_ONCE)[way - 1])
            times.append(time.perf_counter() - began)
            assert found == len(texts)
    return Times(*taken)


def ask_steadily(client: Client, seconds: float) -> list[float]:
    """Embeds single texts; returns the seconds of each."""
    took: list[float] = []
    texts = sentences(200)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.perf_counter()
        assert client.embed(texts[len(took) % len(texts)]) == 1
        took.append(time.perf_counter() - began)
        time.sleep(EVERY_S)
    return took


def ask_during_large_requests(process: ServiceProcess, other: Client, seconds: float) -> list[float]:
    """Returns the seconds of single texts while another client sends large requests without a pause."""
    done = threading.Event()
    texts = sentences()

    def flood() -> int:
        answered = 0
        with client_of(process, LARGE_KEY) as large:
            while not done.is_set():
                answered += large.embed(texts)
        return answered

    with ThreadPoolExecutor(1) as threads:
        flooding = threads.submit(flood)
        time.sleep(0.2)
        took = ask_steadily(other, seconds)
        done.set()
        assert flooding.result() % TEXTS == 0
    return took


def longest_batch_s(process: ServiceProcess, key: str = OTHER_KEY) -> float:
    """Returns the estimated seconds of the largest batch shape."""
    models = httpx.get(f"{process.url}/v1/models", headers={"authorization": f"Bearer {key}"}).json()["models"]
    return max(float(shape["seconds"]) for shape in models[0]["batch_shapes"])


@pytest.mark.parametrize("rounds", ROUNDS)
def test_one_large_request_is_as_fast_as_many_small_ones(rounds: int, process: ServiceProcess, report: Report) -> None:
    with client_of(process, LARGE_KEY) as client:
        times = measure_times(client, rounds)
    report(f"{TEXTS} texts: {times}")
    report.promise(times.ratio(times.one_after_another) <= RATIO, "a large request takes no longer than small ones")


@pytest.mark.parametrize("rounds", ROUNDS)
def test_another_client_does_not_wait_for_a_large_request(rounds: int, process: ServiceProcess, report: Report) -> None:
    with client_of(process, OTHER_KEY) as other:
        alone = float(np.percentile(ask_steadily(other, rounds), 99))
        meanwhile = float(np.percentile(ask_during_large_requests(process, other, rounds), 99))
    batch_s = longest_batch_s(process)
    report(f"p99 alone {alone * 1e3:.1f} ms, meanwhile {meanwhile * 1e3:.1f} ms, one batch {batch_s * 1e3:.1f} ms")
    report.promise(meanwhile <= P99_RATIO * alone + batch_s, "another client waits for at most one batch more")
