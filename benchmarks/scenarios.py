"""Loads by clients: their number, their requests and the bodies of these."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet import ROOT, RunningService
from benchmarks.weights import CACHE
from benchmarks.workload import natural_lengths, token_ids

SEQUENCES: Final = 512
"""Sequences of the natural mix that clients send in turn."""
CONNECTIONS: Final = 4
"""Connections that all gRPC clients share, as in a process that calls another."""
SECONDS: Final[Mapping[str, tuple[float, float]]] = {
    "1x1": (0.5, 2.0),
    "8x1": (1.0, 3.0),
    "64x1": (3.0, 8.0),
    "4x32": (3.0, 8.0),
}
"""Seconds of load that is not counted, and that is counted. Many clients need longer: a slow service takes seconds for
one response to each."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A closed loop: each client sends its next request after the last response.

    Attributes:
        transport: `rest` or `grpc`.
        output: Requested output.
        clients: Number of clients.
        rows: Sequences in each request.
        length: Length of each sequence; 0 for the natural mix.
    """

    transport: str
    output: str
    clients: int
    rows: int
    length: int = 0

    @property
    def load(self) -> str:
        """Clients and rows, such as `64x1`."""
        return f"{self.clients}x{self.rows}"

    @property
    def mix(self) -> str:
        """Lengths of the sequences."""
        return str(self.length) if self.length else "natural"

    @property
    def labels(self) -> dict[str, str]:
        """Labels in findings."""
        return {"transport": self.transport, "output": self.output, "load": self.load, "mix": self.mix}


def bodies(scenario: Scenario) -> list[bytes]:
    """Returns the requests' JSON, the same for all services.

    Example:
        >>> len(bodies(Scenario("rest", "pooled_output", 4, 32)))
        16
        >>> json.loads(bodies(Scenario("rest", "pooled_output", 1, 1, length=3))[0])["outputs"]
        ['pooled_output']
    """
    lengths = [scenario.length] * scenario.rows if scenario.length else natural_lengths(SEQUENCES)
    rows = [row.tolist() for row in token_ids(lengths)]
    requests = [rows[start : start + scenario.rows] for start in range(0, len(rows), scenario.rows)]
    return [
        json.dumps({"token_ids": request, "outputs": [scenario.output]}, separators=(",", ":")).encode()
        for request in requests
    ]


def run_scenario(service: RunningService, scenario: Scenario, factor: float = 1.0) -> dict[str, Any]:
    """Loads a service from a process of its own.

    Args:
        service: Running service.
        scenario: The load.
        factor: Factor of `SECONDS`.

    Returns:
        See `benchmarks.load.closed_loop.summarize`.
    """
    warm_up_s, seconds = (factor * s for s in SECONDS[scenario.load])
    flags: dict[str, object] = {
        "--port": service.ports[scenario.transport],
        "--clients": scenario.clients,
        "--connections": CONNECTIONS,
        "--warm-up-s": warm_up_s,
        "--seconds": seconds,
        "--bodies": _bodies_file(scenario),
    }
    if service.spec.metrics:  # other services may have several processes
        flags["--server-pid"] = service.pid
    command = [sys.executable, "-m", "benchmarks.load", scenario.transport, *_words(flags)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _words(flags: Mapping[str, object]) -> Sequence[str]:
    return [word for name, value in flags.items() for word in (name, str(value))]


def _bodies_file(scenario: Scenario) -> Path:
    path = CACHE / "bodies" / f"{scenario.mix}-{scenario.rows}-{scenario.output}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(bodies(scenario)))
    return path
