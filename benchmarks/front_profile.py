"""Profile of the event loop's thread under load: `python -m benchmarks.front_profile`.

Needs py-spy next to the interpreter. A sample counts for the innermost frame in the table of components, so numpy
counts for its caller. The rest of the loop is native: sockets, gRPC's core and the switching of tasks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.fleet import ROOT, RunningService
from benchmarks.overhead import LOAD_CORE, Scenario, load, start

COMPONENTS: Final = {
    "electra_serve/api/grpc/": "gRPC messages in and out",
    "electra_serve/api/rest/": "JSON in and out, the body, the client watched",
    "structlog/": "the request's log line",
    "electra_serve/observability/logs.py": "the request's log line",
    "electra_serve/observability/": "the request named, timed and counted",
    "prometheus_client/": "the request named, timed and counted",
    "electra_serve/serving/": "validation",
    "electra_serve/batching/planner.py": "planner",
    "electra_serve/batching/": "queue, batches, rows",
    "electra_serve/tensors.py": "queue, batches, rows",
    "concurrent/futures/": "queue, batches, rows",
    "fastapi/": "FastAPI and Starlette",
    "starlette/": "FastAPI and Starlette",
    "uvicorn/": "uvicorn",
    "uvloop/": "the event loop's native part, and gRPC's core",
}
"""Part of a file's path → its component; the first match counts."""


def profile(scenario: Scenario, seconds: float) -> dict[str, float]:
    """Samples the service under one load.

    Returns:
        Component → its share of the event loop's thread, largest first.
    """
    with start("service", ROOT, ["benchmarks.null_service"]) as server, tempfile.TemporaryDirectory() as folder:
        loading = threading.Thread(target=load, args=(server, scenario, seconds + 1))
        loading.start()
        stacks = _sample(server, seconds, Path(folder) / "stacks")
        loading.join()
    return shares(stacks)


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """Sums stacks, each `outermost;…;innermost count`.

    Example:
        >>> shares(["run (uvloop/__init__.py:1);validate (electra_serve/serving/validation.py:2);min (numpy/x.py:3) 3",
        ...         "run (uvloop/__init__.py:1) 1"])
        {'validation': 0.75, "the event loop's native part, and gRPC's core": 0.25}
    """
    samples: Counter[str] = Counter()
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        samples[_component(frames.split(";"))] += int(count)
    return {component: count / samples.total() for component, count in samples.most_common()}


def _component(frames: Sequence[str]) -> str:
    for frame in reversed(frames):
        for part, component in COMPONENTS.items():
            if part in frame:
                return component
    return "other"


def _sample(server: RunningService, seconds: float, file: Path) -> list[str]:
    spy = Path(sys.executable).with_name("py-spy")
    where = ["--pid", str(server.pid), "--output", str(file), "--format", "raw"]
    how = ["--gil", "--function", "--rate", "400", "--duration", str(int(seconds))]
    pinned = ["taskset", "-c", str(LOAD_CORE), str(spy), "record", *where, *how]
    subprocess.run(pinned, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return file.read_text().splitlines()


def main(argv: Sequence[str] | None = None) -> None:
    """Profiles both transports and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clients", type=int, default=64)
    flags = parser.parse_args(argv)
    found = {name: profile(Scenario(name, flags.clients), flags.seconds) for name in ("grpc", "rest")}
    sys.stdout.write("| share of the event loop's thread, % | gRPC | REST |\n|---|---|---|\n")
    for component in dict.fromkeys([*found["grpc"], *found["rest"]]):
        grpc, rest = (100 * found[name].get(component, 0.0) for name in ("grpc", "rest"))
        sys.stdout.write(f"| {component} | {grpc:.0f} | {rest:.0f} |\n")


if __name__ == "__main__":
    main()
