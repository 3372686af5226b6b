"""The client stands alone: none of the server's packages is imported with it."""

from __future__ import annotations

import json
import subprocess
import sys

SERVER_PACKAGES = {
    "fastapi",
    "grpc_health",
    "grpc_reflection",
    "keras",
    "orjson",
    "prometheus_client",
    "pydantic",
    "pydantic_settings",
    "starlette",
    "structlog",
    "tensorflow",
    "tokenizers",
    "uvicorn",
    "yaml",
}
PROGRAM = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set(json.loads(sys.argv[1])):
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
from electra_serve.client import AsyncElectraClient, AsyncGrpcElectraClient, ElectraClient, GrpcElectraClient
print(json.dumps(sorted(name for name in sys.modules if name.startswith("electra_serve."))))
"""


def test_the_client_needs_nothing_of_the_server() -> None:
    program = [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(sorted(SERVER_PACKAGES))]
    modules = json.loads(subprocess.run(program, check=True, capture_output=True, timeout=60).stdout)
    assert "electra_serve.client.grpc" in modules
    server = ("electra_serve.serving", "electra_serve.settings", "electra_serve.model")
    assert not {name for name in modules if name.startswith(server)}
