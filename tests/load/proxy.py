"""HAProxy in front of several replicas, with the configuration of deploy/proxy; Debian's package is `haproxy`."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.integration.process import ROOT, free_port
from tests.waiting import wait_until

CONFIGURATION: Final = ROOT / "deploy/proxy/haproxy.cfg"
HOST: Final = "127.0.0.1"
BINARY: Final = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")

needs_haproxy = pytest.mark.skipif(BINARY is None, reason="needs HAProxy: apt-get install haproxy")


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of REST and gRPC, of the proxy or of one replica."""

    rest: int
    grpc: int

    @classmethod
    def free(cls) -> Ports:
        """Returns two free ports."""
        return cls(free_port(), free_port())


def configuration(front: Ports, instances: Sequence[Ports]) -> str:
    """Returns the shipped configuration with other addresses; omits servers beyond `instances`."""
    lines = []
    for line in CONFIGURATION.read_text().splitlines():
        server = re.match(r"  server electra-(\d)", line)
        if server is None:
            lines.append(
                line.replace("bind :8080", f"bind {HOST}:{front.rest}").replace(
                    "bind :50051", f"bind {HOST}:{front.grpc}"
                )
            )
        elif int(server[1]) <= len(instances):
            ports, name = instances[int(server[1]) - 1], f"electra-{server[1]}:"
            line = line.replace(f"{name}8080", f"{HOST}:{ports.rest}").replace(f"{name}50051", f"{HOST}:{ports.grpc}")
            lines.append(line.replace("check port 8080", f"check port {ports.rest}"))
    return "\n".join(lines) + "\n"


@contextmanager
def haproxy(folder: Path, instances: Sequence[Ports]) -> Iterator[Ports]:
    """Starts it, yields its ports when it listens, and kills it at the end of the context."""
    front, file = Ports.free(), folder / "haproxy.cfg"
    file.write_text(configuration(front, instances))
    with (folder / "haproxy.log").open("wb") as log:
        popen = subprocess.Popen(
            [str(BINARY), "-db", "-f", str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: popen.poll() is None and _listens(front.grpc))
        yield front
    finally:
        popen.kill()
        popen.wait()


def check(text: str, folder: Path) -> str:
    """Returns HAProxy's errors and warnings of a configuration."""
    file = folder / "checked.cfg"
    file.write_text(text)
    result = subprocess.run(
        [str(BINARY), "-c", "-f", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    return result.stderr if result.returncode or "WARNING" in result.stderr else ""


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False
