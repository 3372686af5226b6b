"""A container of the manifests as a process of this machine: its arguments and variables, its mounts as folders.

The process has no capability, so that permissions of folders hold even for root. It can write only to the volumes that
the manifest mounts for that. This is close to a read-only root file system, without a container.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx

from tests.integration.process import READY_S, ROOT, free_port
from tests.integration.standard import health_of
from tests.waiting import wait_until

CONFINED: Final = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
PORTS: Final = ("rest", "grpc", "metrics")
LISTENERS: Final = {"http1": "rest", "h2c": "grpc", "metrics": "metrics"}
"""Listeners, by the names that KServe has for their ports."""


@dataclass(frozen=True, slots=True)
class Volumes:
    """The folders that stand for a pod's mounts.

    Attributes:
        root: Holds one for each mount path.
    """

    root: Path

    def place(self, text: str) -> str:
        """A manifest's text, with the mount paths as they are here."""
        return re.sub(r"(?<![\w:/])/(models|config|keys|tmp|mnt|xla)\b", rf"{self.root}/\1", text)

    def make(self, container: Mapping[str, Any]) -> None:
        """Makes the folder of each mount."""
        for mount in container["volumeMounts"]:
            Path(self.place(mount["mountPath"])).mkdir(parents=True, exist_ok=True)

    def seal(self, container: Mapping[str, Any]) -> None:
        """Takes away the right to write to what is mounted read-only."""
        for mount in container["volumeMounts"]:
            if mount.get("readOnly"):
                for path in (folder := Path(self.place(mount["mountPath"])), *folder.rglob("*")):
                    path.chmod(0o555 if path.is_dir() else 0o444)

    def unseal(self) -> None:
        """Gives the rights back, so that pytest can take the folders away."""
        for path in (self.root, *self.root.rglob("*")):
            path.chmod(0o755)

    def command(self, container: Mapping[str, Any], preset: str | None = None) -> list[str]:
        """Returns the container's command, with a local preset instead of one from a hub."""
        words = [self.place(word) for word in container["args"]]
        words = [preset if preset is not None and "://" in word else word for word in words]
        confine = ["setpriv", *CONFINED] if os.geteuid() == 0 and shutil.which("setpriv") else []
        return [*confine, sys.executable, "-m", "electra_serve", *words]

    def environment(self, container: Mapping[str, Any], **ports: int) -> dict[str, str]:
        """The container's variables, and the image's; ports are free ones, since those of the manifest may be taken."""
        here = {name: value for name, value in os.environ.items() if not name.startswith("ELECTRA_")}
        image = {"HOME": f"{self.root}/tmp", "TMPDIR": f"{self.root}/tmp", "PYTHONPATH": str(ROOT / "service")}
        image |= {"PYTHONDONTWRITEBYTECODE": "1"}
        own = {variable["name"]: self.place(variable["value"]) for variable in container.get("env", [])}
        return here | image | own | {f"ELECTRA_{name.upper()}__PORT": str(port) for name, port in ports.items()}

    @property
    def working_directory(self) -> Path:
        """One that cannot be written to."""
        folder = self.root / "nowhere"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o555)
        return folder


@dataclass(frozen=True, slots=True)
class Running:
    """A container that serves.

    Attributes:
        process: It.
        ports: Its ports: `rest`, `grpc` and `metrics`.
        log: What it writes.
    """

    process: subprocess.Popen[bytes]
    ports: Mapping[str, int]
    log: Path

    def status(self, port: str, path: str) -> int | None:
        """Returns the HTTP status of a path; None without a response."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=5).status_code
        except httpx.TransportError:
            return None

    def probe(self, container: Mapping[str, Any], kind: str) -> int | None:
        """Returns the HTTP status of a probe of KServe's container; None without a response."""
        request = container[kind]["httpGet"]
        names = {port["containerPort"]: port["name"] for port in container["ports"]}
        return self.status(LISTENERS[names[request["port"]]], request["path"])

    def health(self) -> str:
        """Result of the readiness probe."""
        with grpc.insecure_channel(f"127.0.0.1:{self.ports['grpc']}") as channel:
            return health_of(channel)

    def wait_started(self) -> None:
        """Result of the startup probe."""

        def started() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.status("metrics", "/readyz") == 200

        wait_until(started, READY_S)


def run(volumes: Volumes, container: Mapping[str, Any], preset: str, **variables: str) -> str:
    """Runs a container that ends, as init containers do, and returns what it wrote."""
    volumes.make(container)
    result = subprocess.run(
        volumes.command(container, preset),
        env=volumes.environment(container) | variables,
        cwd=volumes.working_directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@contextmanager
def running(volumes: Volumes, container: Mapping[str, Any], **variables: str) -> Iterator[Running]:
    """Starts a container that serves, and kills it at the end of the context if it still runs."""
    ports = {name: free_port() for name in PORTS}
    volumes.make(container)
    volumes.seal(container)
    file = volumes.root / "log"
    with file.open("wb") as log:
        process = subprocess.Popen(
            volumes.command(container),
            env=volumes.environment(container, **ports) | variables,
            cwd=volumes.working_directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Running(process, ports, file)
    finally:
        process.kill()
        process.wait()
