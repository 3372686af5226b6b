"""Services as processes: all are started, and all but the measured one are stopped.

While another service is measured, each is stopped (SIGSTOP) with all its children. It keeps its memory and its ports
but uses no core, so services can be measured in turn for any number of rounds.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from benchmarks.weights import CACHE

ROOT: Final = Path(__file__).parents[1]
LOGS: Final = CACHE / "logs"
READY_S: Final = 180.0
STOP_S: Final = 30.0
POLL_S: Final = 0.005
READY_PATH: Final = "/readyz"


class ServiceFailed(Exception):
    """A service did not become ready; the message names its log."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service that can be started.

    Attributes:
        name: Name in the report.
        command: Arguments of `python`, given a REST and a gRPC port.
        grpc: It serves gRPC too.
        metrics: It has this service's metrics.
        size: Architecture of its model.
        dtype: Data type of its arithmetic.
        checkout: Source tree that it runs from.
    """

    name: str
    command: Callable[[int, int], Sequence[str]]
    grpc: bool = False
    metrics: bool = False
    size: str = "small"
    dtype: str = "float32"
    checkout: Path = ROOT


class RunningService:
    """A service's process and its children; it starts at once.

    Args:
        spec: The service.
        prefix: Command that runs `python`, such as `taskset`.
    """

    def __init__(self, spec: ServiceSpec, *, prefix: Sequence[str] = ()) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self.spec = spec
        self.ports = {"rest": free_port(), "grpc": free_port()}
        self.log = LOGS / f"{re.sub(r'[ ,/]+', '-', spec.name)}.log"
        self._paused = False
        variables = {name: value for name, value in os.environ.items() if not name.startswith("ELECTRA_")}
        paths = [str(spec.checkout / "service"), *variables.get("PYTHONPATH", "").split(os.pathsep)]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # before what is installed
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(
                [*prefix, sys.executable, *spec.command(self.ports["rest"], self.ports["grpc"])],
                cwd=spec.checkout,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a process group of its own, to stop and end as a whole
            )

    @property
    def pid(self) -> int:
        """Id of the first process and of its group."""
        return self._popen.pid

    def get(self, path: str) -> bytes:
        """Returns the response to a GET.

        Raises:
            OSError: There is none, or it is an error.
        """
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['rest']}{path}", timeout=STOP_S) as answer:
            body: bytes = answer.read()
            return body

    def post(self, path: str, body: bytes) -> bytes:
        """Returns the response to a POST of JSON.

        Raises:
            OSError: There is none, or it is an error.
        """
        url = f"http://127.0.0.1:{self.ports['rest']}{path}"
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=STOP_S) as answer:
            found: bytes = answer.read()
            return found

    def wait_ready(self) -> None:
        """Waits until it is ready.

        Raises:
            ServiceFailed: It ended, or took too long.
        """
        deadline = time.monotonic() + READY_S
        while not self._ready():
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise ServiceFailed(f"did not become ready: {self._last_words()} ({self.log})")
            time.sleep(POLL_S)

    def pause(self) -> None:
        """Stops its processes."""
        if not self._paused:
            self._signal(signal.SIGSTOP)
            self._paused = True

    def resume(self) -> None:
        """Continues its processes and waits until it is ready."""
        if self._paused:
            self._signal(signal.SIGCONT)
            self._paused = False
            self.wait_ready()

    def close(self) -> None:
        """Ends it and its children."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(STOP_S)
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def _last_words(self) -> str:
        """Returns the last line of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1][:200] if lines else "it wrote nothing"

    def _ready(self) -> bool:
        try:
            self.get(READY_PATH)
        except urllib.error.HTTPError as error:
            return error.code == HTTPStatus.OK
        except OSError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)


@contextmanager
def start_fleet(specs: Sequence[ServiceSpec]) -> Iterator[dict[str, RunningService]]:
    """Starts services one after the other; each is stopped until it is resumed."""
    with ExitStack() as stack:
        fleet = {}
        for spec in specs:
            service = RunningService(spec)
            stack.callback(service.close)
            service.wait_ready()
            service.pause()
            fleet[spec.name] = service
        yield fleet


@contextmanager
def resumed(service: RunningService) -> Iterator[RunningService]:
    """Runs one service of a fleet for as long as the context lasts."""
    service.resume()
    try:
        yield service
    finally:
        service.pause()


def free_port() -> int:
    """Returns a TCP port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
