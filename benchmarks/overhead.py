"""What the front end costs: `python -m benchmarks.overhead` prints a table, and JSON with `--json`.

The service with an engine that computes nothing runs on one core, the load generator on another, and beside it the
ceilings: bare servers that answer the same bytes. `--beside before=FOLDER` adds the service of another checkout.
All servers run at once and wait while another is loaded, round after round, so that whatever else the machine does
hits all alike. Medians over the rounds.

`requests_per_s` is what was answered; `server_cpu_us` is the CPU time of the whole server process for each request,
which other processes on its core do not disturb.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.null_engine import NullEngine
from electra_serve.engine.profiling import full_batch
from electra_serve.tensors import BatchShape, Output

ROOT: Final = Path(__file__).parents[1]
SERVER_CORE: Final = 0
LOAD_CORE: Final = 1
READY_S: Final = 60.0
ENGINE_S: Final = 0.002
"""What the engine takes that is not quite null."""
FIGURES: Final = ("requests_per_s", "server_cpu_us", "p50_ms", "p99_ms", "generator_cpu")

Figures = dict[str, float]
Found = dict[str, dict[str, list[Figures]]]
"""Server → scenario → the figures of each round."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to load a server.

    Attributes:
        transport: `rest` or `grpc`.
        clients: How many ask at a time.
        encoding_format: Of REST's answer.
    """

    transport: str
    clients: int
    encoding_format: str = "float"

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.transport} {self.encoding_format if self.transport == 'rest' else ''} {self.clients}"


SCENARIOS: Final = (
    Scenario("grpc", 64),
    Scenario("rest", 64),
    Scenario("rest", 64, "base64"),
    Scenario("grpc", 1),
    Scenario("rest", 1),
)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, pinned to its core."""

    name: str
    process: subprocess.Popen[bytes]
    ports: Mapping[str, int]


def measure(
    *, rounds: int, seconds: float, beside: Mapping[str, Path] | None = None, log_requests: bool = True
) -> Found:
    """Runs every scenario against every server.

    Args:
        rounds: How often.
        seconds: Of each scenario in each round.
        beside: Name and folder of other checkouts to measure in the same rounds.
        log_requests: Whether the service writes a line for each request, as it does by default.

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
        found: Found = {server.name: {scenario.name: [] for scenario in SCENARIOS} for server in servers}
        for _ in range(rounds):
            for scenario in SCENARIOS:
                for server in servers:
                    found[server.name][scenario.name].append(load(server, scenario, seconds))
    return found


def engine_p50_ms(seconds_per_batch: float, calls: int = 500) -> float:
    """What a raw call of the engine takes, (1, 32) in and one output out."""
    shape = BatchShape(1, 32)
    engine = NullEngine(256, (shape,), seconds_per_batch=seconds_per_batch)
    batch = full_batch(shape)
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        engine.run(batch, frozenset({Output.POOLED}))
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e3


@contextmanager
def start(name: str, folder: Path, module: Sequence[str]) -> Iterator[Server]:
    """Starts a server of `folder` on two free ports and waits until it is ready; ends it with the context."""
    ports = {"rest": _free_port(), "grpc": _free_port()}
    command = _pinned(SERVER_CORE, *module, *(f"--{transport}-port={port}" for transport, port in ports.items()))
    environment = os.environ | {"PYTHONPATH": str(folder / "service")}  # before what is installed: another checkout's
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        if process.stdout is None or not process.stdout.readline().startswith(b"ready"):
            raise RuntimeError(f"{name} did not start")
        yield Server(name, process, ports)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def load(server: Server, scenario: Scenario, seconds: float) -> Figures:
    """Loads one server from a process of its own."""
    flags = {
        "port": server.ports[scenario.transport],
        "clients": scenario.clients,
        "encoding-format": scenario.encoding_format,
        "warm-up-s": min(1.0, seconds / 3),
        "seconds": seconds,
        "server-pid": server.process.pid,
    }
    command = _pinned(LOAD_CORE, "benchmarks.load", scenario.transport, *(f"--{k}={v}" for k, v in flags.items()))
    figures = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    if figures["errors"]:
        raise RuntimeError(f"{server.name}, {scenario.name}: {figures['errors']}")
    return {name: figures[name] for name in FIGURES}


def table(found: Found) -> str:
    """The medians in Markdown."""
    lines = ["| server | load | requests/s | CPU µs | p50 ms | p99 ms |", "|---|---|---|---|---|---|"]
    for server, scenarios in found.items():
        for scenario, rounds in scenarios.items():
            rate, cpu, p50, p99 = (statistics.median(figures[name] for figures in rounds) for name in FIGURES[:4])
            lines.append(f"| {server} | {scenario} | {rate:,.0f} | {cpu:.0f} | {p50:.2f} | {p99:.2f} |")
    return "\n".join(lines)


def _pinned(core: int, module: str, *flags: str) -> list[str]:
    return ["taskset", "-c", str(core), sys.executable, "-m", module, *flags]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


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
