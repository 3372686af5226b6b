"""A container of the manifests as a process of this machine: its arguments and variables, its mounts as folders.

Without any capability, so that the folders' permissions hold even for root, and with nothing to write to but what the
manifest mounts for that: the nearest to a read-only root file system that needs no container.
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

from tests.integration.process import ROOT, free_port

CONFINED: Final = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
PORTS: Final = ("rest", "grpc", "metrics")


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

    def command(self, container: Mapping[str, Any], preset: str | None = None) -> list[str]:
        """What the container runs; a preset of a hub is replaced by one that is here."""
        words = [self.place(word) for word in container["args"]]
        words = [preset if preset is not None and "://" in word else word for word in words]
        confine = ["setpriv", *CONFINED] if os.geteuid() == 0 and shutil.which("setpriv") else []
        return [*confine, sys.executable, "-m", "service", *words]

    def environment(self, container: Mapping[str, Any], **ports: int) -> dict[str, str]:
        """The container's variables, and the image's; ports are free ones, since those of the manifest may be taken."""
        here = {name: value for name, value in os.environ.items() if not name.startswith("ELECTRA_")}
        image = {"HOME": f"{self.root}/tmp", "TMPDIR": f"{self.root}/tmp", "PYTHONPATH": str(ROOT)}
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


def run(volumes: Volumes, container: Mapping[str, Any], preset: str) -> str:
    """Runs a container that ends, as init containers do, and returns what it wrote."""
    volumes.make(container)
    result = subprocess.run(
        volumes.command(container, preset),
        env=volumes.environment(container),
        cwd=volumes.working_directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@contextmanager
def running(
    volumes: Volumes, container: Mapping[str, Any], **variables: str
) -> Iterator[tuple[subprocess.Popen[bytes], Mapping[str, int]]]:
    """A container that serves: the process, and its ports by name. Killed at the end of the context."""
    ports = {name: free_port() for name in PORTS}
    volumes.make(container)
    volumes.seal(container)
    with (volumes.root / "log").open("wb") as log:
        process = subprocess.Popen(
            volumes.command(container),
            env=volumes.environment(container, **ports) | variables,
            cwd=volumes.working_directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process, ports
    finally:
        process.kill()
        process.wait()
