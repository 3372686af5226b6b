"""Starts the service with the interpreter of its own environment. Imports nothing of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

ROOT: Final = Path(__file__).parents[2]
PYTHON: Final = os.environ.get("SERVICE_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
KEY: Final = "key-of-the-stock-clients"
READY_S: Final = 120.0
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Served:
    """A running service."""

    url: str
    target: str = ""
    """Address of gRPC."""

    @property
    def v1(self) -> str:
        """Base URL of OpenAI's clients."""
        return f"{self.url}/v1"

    def post(self, path: str, body: Mapping[str, object], **headers: str) -> httpx.Response:
        """Sends JSON, with the key."""
        sent = {"authorization": f"Bearer {KEY}", **headers}
        return httpx.post(f"{self.url}{path}", json=body, headers=sent, timeout=60)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts by `/v1/encode`: (N, H)."""
        body = {"model": "encoder", "text": texts, "outputs": ["embedding"], "truncate": True}
        response = self.post("/v1/encode", body)
        response.raise_for_status()
        found = np.asarray(response.json()["embedding"], np.float32)
        unit: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit


@contextlib.contextmanager
def serve(
    folder: Path,
    models: Sequence[Mapping[str, Any]] = (),
    *flags: str,
    module: str = "electra_serve",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Starts the service and waits until it is ready; checks at the end that it logged no error.

    Args:
        folder: For its log and its file of keys.
        models: Models to serve; none for the built-in one.
        flags: Further flags.
        module: Module that Python runs: the service, or one with the same command line.
        environment: Variables to add.
    """
    keys, log = folder / "keys", folder / "log"
    keys.write_text(f"stock:{KEY}\n")
    rest, grpc = _free_ports()
    command = [PYTHON, "-m", module, "serve", f"--rest.port={rest}", f"--grpc.port={grpc}"]
    command += ["--log.format=json", "--log.requests=false", f"--security.api_keys_file={keys}", *flags]
    command += [f"--models={json.dumps(models)}"] if models else []
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ELECTRA_")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env={**inherited, **(environment or {})}, stderr=output)
    try:
        _wait_ready(process, f"http://127.0.0.1:{rest}", log)
        yield Served(f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}")
    finally:
        process.kill()
        process.wait()
    assert [line for line in log.read_text().splitlines() if '"level":"error"' in line] == []


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends = time.monotonic() + READY_S
    while time.monotonic() < ends:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"not ready: {log.read_text()}")
