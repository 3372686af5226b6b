"""The service under load, natural lengths: one process, and several that share the device.

Several processes show whether the front end or the engine is the limit. The same clients are spread over them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.scenarios import Scenario, bodies
from tests.integration.process import ServiceProcess
from tools.gpu_kit.stages.services import serve, wait_ready
from tools.gpu_kit.stages.stage import Bench, run_stage

PROCESSES: Final = {"gpu": 4, "cpu": 2}
SIZES: Final = {"gpu": ("base", "small"), "cpu": ("tiny",)}
CLIENTS: Final = {"gpu": (64, 512), "cpu": (8,)}
SECONDS: Final = {"gpu": (1.0, 3.0), "cpu": (0.3, 1.0)}
"""Load before anything is counted, and load that is counted."""
LENGTH: Final = {"gpu": 0, "cpu": 32}
BUSY: Final = "electra_compute_seconds_sum"
CONNECTIONS: Final = 8


def measure_served(bench: Bench) -> None:
    """Records each size, transport, number of clients and of processes."""
    for size in SIZES[bench.device]:
        with contextlib.ExitStack() as stack:
            count = PROCESSES[bench.device]
            services = [stack.enter_context(serve(bench, [size], wait=False)) for _ in range(count)]
            for service in services:
                wait_ready(service)
            for clients in CLIENTS[bench.device]:
                for transport in ("rest", "grpc"):
                    for used in (services[:1], services):
                        _measure(bench, used, size, transport, clients)


def _measure(bench: Bench, services: Sequence[ServiceProcess], size: str, transport: str, clients: int) -> None:
    warm_up_s, _ = SECONDS[bench.device]
    file = _bodies_file(bench.work, LENGTH[bench.device])
    commands = [_command(service, transport, clients // len(services), file, bench.device) for service in services]
    busy_s = _busy_s(services)
    generators = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    found: list[dict[str, Any]] = [json.loads(generator.communicate()[0]) for generator in generators]
    loaded_s = warm_up_s + sum(one["seconds"] for one in found) / len(found)
    idle = 1 - (_busy_s(services) - busy_s) / loaded_s / len(services)
    labels: dict[str, str | int] = {
        "size": size,
        "transport": transport,
        "clients": clients,
        "processes": len(services),
    }
    _record(bench, found, idle, labels)


def _record(bench: Bench, found: list[dict[str, Any]], idle: float, labels: dict[str, str | int]) -> None:
    add = bench.recorder.add
    add("sequences_per_s", [sum(one["sequences_per_s"] for one in found)], **labels)
    add("p50_ms", [one["p50_ms"] for one in found if one["p50_ms"] is not None], **labels)
    add("p99_ms", [one["p99_ms"] for one in found if one["p99_ms"] is not None], **labels)
    cores = sum(one["server_cpu_us"] * one["requests_per_s"] for one in found) / 1e6
    add("service_cores", [cores], **labels)
    add("generator_cores", [one["generator_cpu"] for one in found], **labels)
    add("engine_idle_share", [idle], **labels)
    errors = {code: count for one in found for code, count in one["errors"].items()}
    name = " ".join(map(str, labels.values()))
    bench.recorder.check(f"{name}: every request gets a response", not errors, errors or "")


def _command(service: ServiceProcess, transport: str, clients: int, file: Path, device: str) -> list[str]:
    warm_up_s, seconds = SECONDS[device]
    port = service.rest_port if transport == "rest" else service.grpc_port
    flags = {
        "port": port,
        "clients": clients,
        "connections": CONNECTIONS,
        "warm-up-s": warm_up_s,
        "seconds": seconds,
        "bodies": file,
        "server-pid": service.popen.pid,
    }
    return [sys.executable, "-m", "benchmarks.load", transport, *(f"--{name}={value}" for name, value in flags.items())]


def _bodies_file(work: Path, length: int) -> Path:
    """Requests of `length` ids each; 0: of the natural mix."""
    path = work / "bodies.jsonl"
    if not path.is_file():
        path.write_bytes(b"\n".join(bodies(Scenario("rest", "pooled_output", 1, 1, length=length))))
    return path


def _busy_s(services: Sequence[ServiceProcess]) -> float:
    """Seconds that the engines have computed."""
    texts = [httpx.get(f"{service.url}/metrics").text for service in services]
    families = [family for text in texts for family in text_string_to_metric_families(text)]
    return sum(sample.value for family in families for sample in family.samples if sample.name == BUSY)


if __name__ == "__main__":
    sys.exit(run_stage("served", measure_served))
