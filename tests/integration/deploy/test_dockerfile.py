"""The Dockerfile: linted, and at one with the settings, the command line and the package."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

from electra_serve import __version__
from electra_serve.cli import main as cli
from electra_serve.settings.loader import variable_names
from electra_serve.settings.schema import Settings
from tests.integration.deploy.deployment import (
    DOCKERFILE,
    ROOT,
    container_environment,
    instructions,
    last_stage,
    only,
    stage,
    stage_names,
)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD_SCRIPT = ROOT / "deploy/image/build.sh"
images = pytest.mark.parametrize(("target", "extra"), [("cpu", "openvino"), ("gpu", "jax")])
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def lint(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HADOLINT, "--no-color", "--failure-threshold=style", "--disable-ignore-pragma", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_hadolint_has_nothing_to_say() -> None:
    result = lint(DOCKERFILE.read_text())
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("step", "rule"),
    [("FROM python:latest", "DL3007"), ("RUN cd /tmp", "DL3003"), ("# hadolint ignore=DL3003\nRUN cd /tmp", "DL3003")],
)
def test_hadolint_sees_every_level_and_takes_no_excuse(step: str, rule: str) -> None:
    result = lint(f"{DOCKERFILE.read_text()}\n{step}\n")
    assert result.returncode == 1
    assert rule in result.stdout


@images
def test_the_process_is_not_root_and_kubernetes_can_verify_it(target: str, extra: str) -> None:
    user, group = only(stage(target), "USER").arguments.split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_every_variable_is_a_setting() -> None:
    variables = {name for name in container_environment() if name.startswith("ELECTRA_")}
    assert {"ELECTRA_REST__HOST", "ELECTRA_GRPC__HOST"} <= variables <= set(variable_names())


def test_it_listens_on_every_interface_at_the_exposed_ports(container_settings: Settings) -> None:
    rest, grpc = container_settings.rest, container_settings.grpc
    assert (rest.host, grpc.host) == ("0.0.0.0", "0.0.0.0")
    assert {int(port) for port in only(last_stage(), "EXPOSE").words} == {rest.port, grpc.port}


def test_its_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    steps = last_stage()
    start = only(steps, "ENTRYPOINT").argv + only(steps, "CMD").argv
    check = only(steps, "HEALTHCHECK").argv
    for script, *arguments in (start, check):
        assert script in PROJECT["scripts"]
        with pytest.raises(SystemExit) as stopped:
            cli.main([*arguments, "--help"])
        assert stopped.value.code == 0
    assert "--rest.port" in capsys.readouterr().out  # both go by the same settings


def test_what_it_copies_exists_and_is_all_that_is_sent_to_the_builder() -> None:
    copies = [step for step in instructions(DOCKERFILE.read_text()) if step.name == "COPY"]
    sources = {word for step in copies if "--from" not in step.arguments for word in step.words[:-1]}
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    assert {rule[1:] for rule in rules if rule.startswith("!")} == sources  # deploy/image/try.sh uses them too
    assert [source for source in sources if not (ROOT / source).exists()] == []


@images
def test_an_image_installs_an_extra_and_checks_for_it(target: str, extra: str) -> None:
    assert extra in PROJECT["optional-dependencies"]
    (dependencies,) = (step for step in stage(f"{target}-dependencies") if "build.sh environment" in step.arguments)
    assert dependencies.arguments.endswith(f'environment /opt/venv {extra} ${{ADD_EXTRA:+"$ADD_EXTRA"}}')
    assert only(stage(f"{target}-dependencies"), "ARG").arguments == "ADD_EXTRA="
    (service,) = (step for step in stage(target) if "build.sh install" in step.arguments)
    assert service.arguments.endswith(f"check /opt/venv {extra}")


def test_without_a_target_it_is_the_image_for_cpus() -> None:
    assert stage_names()[-1] == "cpu"


def test_no_tensorflow_comes_with_the_image_for_cpus() -> None:
    extra = {line.split(">=")[0] for line in PROJECT["optional-dependencies"]["openvino"]}
    assert extra == {"electra-serve[server]", "openvino"}
    assert [line for line in PROJECT["optional-dependencies"]["server"] if line.startswith("tensorflow")] == []


@images
def test_it_has_the_package_s_version_and_license(target: str, extra: str) -> None:
    labels = only(stage(target), "LABEL").pairs
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == PROJECT["license"]


def executable(path: Path, command: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("engine", ["tensorflow", "jax", "openvino"])
def test_the_build_checks_which_engines_there_are(tmp_path: Path, engine: str) -> None:
    """With an environment's python that finds this one engine, and a `uv` that has no objection."""
    executable(tmp_path / "bin/python", f'case "$2" in *{engine}*) ;; *) exit 1 ;; esac')
    executable(tmp_path / "uv", "")
    for extra, right in (("openvino", "openvino"), ("jax", "jax"), ("gpu", "tensorflow")):
        result = subprocess.run(
            ["/bin/sh", BUILD_SCRIPT, "check", tmp_path, extra],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (result.returncode == 0) == (engine == right), result.stderr


def test_every_step_of_the_script_is_tried_without_an_engine() -> None:
    steps = re.findall(r"^(\w+)\(\)", BUILD_SCRIPT.read_text(), re.MULTILINE)
    tried = re.findall(r"^step (\w+)", (BUILD_SCRIPT.parent / "try.sh").read_text(), re.MULTILINE)
    assert sorted(steps) == sorted(tried)
