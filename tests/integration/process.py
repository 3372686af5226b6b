"""The real process: started as a user starts it, watched from outside, and ended whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from benchmarks.load.clients import Endpoint
from tests.waiting import LIMIT_S, wait_until

ROOT: Final = Path(__file__).parents[2]
READY_S: Final = 120.0
"""Limit of a start, on a busy machine."""
PORTS: Final = (10_000, 32_000)
"""Below those that Linux gives to connections going out, of which a test under load makes hundreds a second."""
TENSORFLOW_LINES: Final = ("I0000 ", "WARNING: All log messages before absl::InitializeLog() is called")
"""First words of lines that TensorFlow's C++ code writes at import, whatever its settings."""


@dataclass(frozen=True, slots=True)
class Standard:
    """Open descriptors that a process gets as its standard output and error."""

    output: int
    error: int


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """`python -m electra_serve serve` on two free ports.

    Attributes:
        popen: The process.
        rest_port: Port of REST.
        grpc_port: Port of gRPC.
        folder: Holds what it writes, as `stdout` and `stderr`.
    """

    popen: subprocess.Popen[bytes]
    rest_port: int
    grpc_port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def endpoints(self) -> tuple[Endpoint, Endpoint]:
        return Endpoint.both(self.rest_port, self.grpc_port)

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def events(self) -> list[dict[str, object]]:
        """The log's lines."""
        return [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]

    @property
    def complaints(self) -> list[str]:
        """Returns the lines of standard error that are neither its log nor TensorFlow's own."""
        return [line for line in self.stderr.splitlines() if not line.startswith(("{", *TENSORFLOW_LINES))]

    def status(self, path: str) -> int | None:
        """Returns the HTTP status of a path; None without a response."""
        try:
            return httpx.get(f"{self.url}{path}", timeout=5).status_code
        except httpx.TransportError:
            return None

    def wait_live(self) -> None:
        """Waits until it listens."""
        self._wait_for(lambda: self.status("/livez") == 200)

    def wait_ready(self) -> None:
        """Waits until its models are loaded."""
        self._wait_for(lambda: self.status("/readyz") == 200)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.popen.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = LIMIT_S) -> int:
        """Waits for its end and returns its exit code."""
        return self.popen.wait(timeout_s)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        def alive_and_met() -> bool:
            assert self.popen.poll() is None, f"the process ended: {self.stderr}"
            return condition()

        wait_until(alive_and_met, READY_S)


@contextlib.contextmanager
def start(
    folder: Path,
    *flags: str,
    environment: Mapping[str, str] | None = None,
    ports: bool = True,
    module: str = "electra_serve",
    at: tuple[int, int] | None = None,
    prefix: Sequence[str] = (),
    standard: Standard | None = None,
) -> Iterator[ServiceProcess]:
    """Starts it, and kills it at the end of the context if it still runs.

    Args:
        folder: For what it writes.
        flags: After `serve`.
        environment: Variables to add. None of ours is inherited.
        ports: True to set the ports by flags.
        module: What Python runs: the service, or something with the same command line.
        at: The ports for REST and gRPC; None takes free ones.
        prefix: What runs the command.
        standard: Descriptors for its standard output and error; None writes files in `folder`.
    """
    rest_port, grpc_port = at or (free_port(), free_port())
    where = (f"--rest.port={rest_port}", f"--grpc.port={grpc_port}") if ports else ()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ELECTRA_")}
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        popen = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, "serve", *where, *flags],
            cwd=ROOT,
            env={**variables, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=standard.output if standard else stdout,
            stderr=standard.error if standard else stderr,
        )
    try:
        yield ServiceProcess(popen, rest_port, grpc_port, folder)
    finally:
        popen.kill()
        popen.wait()


def homeless() -> list[str]:
    """Runs a command without HOME, as an unknown user if root runs the tests.

    The capability stands for an interpreter that everyone may read, as images have it.
    """
    unknown_uid = "54321"
    user = ["setpriv", "--reuid", unknown_uid, "--regid", unknown_uid, "--clear-groups"]
    readable = [f"--{kind}=+dac_read_search" for kind in ("inh-caps", "ambient-caps")]
    as_user = [*user, *readable] if os.getuid() == 0 and shutil.which("setpriv") else []
    return [*as_user, "env", "-i", f"PATH={os.defpath}", f"PYTHONPATH={ROOT / 'service'}"]


def free_port() -> int:
    """Returns a free TCP port that no outgoing connection can get in the meantime."""
    while True:
        port = random.randrange(*PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
