"""The client works in a base install: with no package and no module of the server."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import electra_serve
from electra_serve import client

ROOT = Path(__file__).parents[3]
PUBLIC = ["AsyncElectraClient", "AsyncGrpcElectraClient", "ElectraClient", "GrpcElectraClient"]
CLIENT_MODULES = ("electra_serve.client", "electra_serve.errors", "electra_serve.proto", "electra_serve.tensors")
PROGRAM = """
import json, sys

class BaseInstall:
    def __init__(self, missing):
        self.missing = missing
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.missing:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, BaseInstall(set(json.load(sys.stdin))))
exec(sys.argv[1])
print(json.dumps(sorted(sys.modules)))
"""


def base_install() -> set[str]:
    """The distributions that `pip install electra-serve` installs here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = {project["name"]}
    needed = list(project["dependencies"])
    while needed:
        requirement = Requirement(needed.pop())
        name = canonicalize_name(requirement.name)
        if name not in installed and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            installed.add(name)
            try:
                needed += requires(name) or []
            except PackageNotFoundError:
                pytest.fail(f"{name} must be installed: the base install needs it")
    return installed


def loaded_by(statement: str) -> set[str]:
    """The modules in a process of the base install after one statement."""
    installed = base_install()
    missing = [
        package
        for package, distributions in packages_distributions().items()
        if installed.isdisjoint(map(canonicalize_name, distributions))
    ]
    program = [sys.executable, "-W", "error", "-c", PROGRAM, statement]
    ran = subprocess.run(program, input=json.dumps(missing), capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout))


def test_the_base_install_has_the_transports_and_not_the_server() -> None:
    installed = base_install()
    assert {"grpcio", "httpx", "numpy", "protobuf"} <= installed
    assert installed.isdisjoint({"fastapi", "keras", "openvino", "pydantic", "structlog", "tensorflow", "uvicorn"})


@pytest.mark.parametrize("source", ["electra_serve", "electra_serve.client"])
def test_the_client_needs_nothing_of_the_server(source: str) -> None:
    modules = loaded_by(f"from {source} import {', '.join(PUBLIC)}")
    assert {"electra_serve.client.grpc", "electra_serve.client.rest"} <= modules
    assert not {name for name in modules if name.startswith("electra_serve.") and not name.startswith(CLIENT_MODULES)}


def test_the_package_alone_imports_no_transport() -> None:
    modules = loaded_by("import electra_serve; electra_serve.__version__")
    assert modules.isdisjoint({"grpc", "google", "httpx", "numpy"})
    assert {name for name in modules if name.startswith("electra_serve")} == {"electra_serve"}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_package_has_the_clients(name: str) -> None:
    assert getattr(electra_serve, name) is getattr(client, name)
    assert name in electra_serve.__all__
    assert name in dir(electra_serve)


def test_the_package_has_nothing_else() -> None:
    with pytest.raises(AttributeError, match="module 'electra_serve' has no attribute 'GrpcClient'"):
        _ = electra_serve.GrpcClient  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'Client'"):
        exec("from electra_serve import Client")
