"""Cost of the front end: `python -m benchmarks.overhead` prints a table, or JSON with `--json`.

The null service runs on one core and the load generator on another. A bare server with the same responses is the upper
limit, and `--beside before=FOLDER` adds the service of another checkout. The servers are loaded in turn, round after
round, and the table has medians over the rounds.

`server_cpu_us` is the CPU time of the server process per request, which other processes on its core do not disturb.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.fleet import ROOT, RunningService, ServiceSpec
from benchmarks.null_service import HIDDEN_DIM, null_script
from benchmarks.stand_in.engine import StandInEngine
from electra_serve.engine.profiling import full_batch
from electra_serve.tensors import BatchShape, Output

SERVER_CORE: Final = 0
LOAD_CORE: Final = 1
ENGINE_S: Final = 0.002
"""Time of a batch on the engine that is not null."""
FIGURES: Final = ("requests_per_s", "server_cpu_us", "p50_ms", "p99_ms", "generator_cpu")

Figures = dict[str, float]
Found = dict[str, dict[str, list[Figures]]]
"""Server → scenario → the figures of each round."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to load a server.

    Attributes:
        transport: `rest` or `grpc`.
        clients: Number of requests in flight.
        encoding_format: Encoding of REST's responses.
    """

    transport: str
    clients: int
    encoding_format: str = "float"

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.transport} {self.encoding_format if self.transport == 'rest' else ''} {self.clients}"


SCENARIOS: Final = (
    Scenario("grpc", 64),
    Scenario("rest", 64),
    Scenario("rest", 64, "base64"),
    Scenario("grpc", 1),
    Scenario("rest", 1),
)


def measure(
    *, rounds: int, seconds: float, beside: Mapping[str, Path] | None = None, log_requests: bool = True
) -> Found:
    """Runs every scenario against every server.

    Args:
        rounds: Number of rounds.
        seconds: Seconds of each scenario in each round.
        beside: Other checkouts to measure in the same rounds, by name.
        log_requests: The service logs each request, as it does by default.

    Returns:
        Server → scenario → the figures of each round.
    """
    module = ["benchmarks.null_service", *([] if log_requests else ["--no-log-requests"])]
    slow = [*module, f"--seconds-per-batch={ENGINE_S}"]
    with ExitStack() as running:
        servers = [running.enter_context(start("bare", ROOT, ["benchmarks.bare_service"]))]
        for name, folder in {**(beside or {}), "service": ROOT}.items():
            servers.append(running.enter_context(start(name, folder, module)))
            servers.append(running.enter_context(start(f"{name}, {ENGINE_S * 1e3:g} ms", folder, slow)))
        found: Found = {server.spec.name: {scenario.name: [] for scenario in SCENARIOS} for server in servers}
        for _ in range(rounds):
            for scenario in SCENARIOS:
                for server in servers:
                    found[server.spec.name][scenario.name].append(load(server, scenario, seconds))
    return found


def engine_p50_ms(seconds_per_batch: float, calls: int = 500) -> float:
    """Measures a raw call of the engine with (1, 32) positions and one output."""
    shape = BatchShape(1, 32)
    engine = StandInEngine(null_script(seconds_per_batch), HIDDEN_DIM, (shape,))
    batch = full_batch(shape)
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        engine.run(batch, frozenset({Output.POOLED}))
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e3


@contextmanager
def start(name: str, checkout: Path, module: Sequence[str]) -> Iterator[RunningService]:
    """Starts a server of a checkout on its core and waits until it is ready; ends it with the context."""

    def command(rest_port: int, grpc_port: int) -> Sequence[str]:
        return ("-m", *module, f"--rest-port={rest_port}", f"--grpc-port={grpc_port}")

    server = RunningService(ServiceSpec(name, command, checkout=checkout), prefix=_pin(SERVER_CORE))
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


def load(server: RunningService, scenario: Scenario, seconds: float) -> Figures:
    """Loads one server from a process of its own."""
    flags = {
        "port": server.ports[scenario.transport],
        "clients": scenario.clients,
        "encoding-format": scenario.encoding_format,
        "warm-up-s": min(1.0, seconds / 3),
        "seconds": seconds,
        "server-pid": server.pid,
    }
    command = [sys.executable, "-m", "benchmarks.load", scenario.transport, *(f"--{k}={v}" for k, v in flags.items())]
    figures = json.loads(subprocess.run([*_pin(LOAD_CORE), *command], cwd=ROOT, check=True, capture_output=True).stdout)
    if figures["errors"]:
        raise RuntimeError(f"{server.spec.name}, {scenario.name}: {figures['errors']}")
    return {name: figures[name] for name in FIGURES}


def table(found: Found) -> str:
    """Writes the medians in Markdown."""
    lines = ["| server | load | requests/s | CPU µs | p50 ms | p99 ms |", "|---|---|---|---|---|---|"]
    for server, scenarios in found.items():
        for scenario, rounds in scenarios.items():
            rate, cpu, p50, p99 = (statistics.median(figures[name] for figures in rounds) for name in FIGURES[:4])
            lines.append(f"| {server} | {scenario} | {rate:,.0f} | {cpu:.0f} | {p50:.2f} | {p99:.2f} |")
    return "\n".join(lines)


def _pin(core: int) -> tuple[str, ...]:
    return ("taskset", "-c", str(core))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=FOLDER", help="another checkout")
    parser.add_argument("--no-log-requests", dest="log_requests", action="store_false")
    parser.add_argument("--json", action="store_true", help="print JSON")
    flags = parser.parse_args(argv)
    beside = {name: Path(folder) for name, _, folder in (text.partition("=") for text in flags.beside)}
    found = measure(rounds=flags.rounds, seconds=flags.seconds, beside=beside, log_requests=flags.log_requests)
    engines = {f"engine of {s * 1e3:g} ms, raw": engine_p50_ms(s) for s in (0.0, ENGINE_S)}
    write: Callable[[str], object] = sys.stdout.write
    if flags.json:
        write(json.dumps({"servers": found, "engine_p50_ms": engines}, indent=2) + "\n")
        return
    write(table(found) + "\n\n" + "".join(f"{name}: p50 {p50:.3f} ms\n" for name, p50 in engines.items()))


if __name__ == "__main__":
    main()
