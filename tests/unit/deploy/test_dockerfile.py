"""The Dockerfile: linted, and at one with the settings, the command line and the package."""

from __future__ import annotations

import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

from service import __version__, cli
from service.settings import Settings
from service.settings_sources import variable_names
from tests.unit.deploy.deployment import DOCKERFILE, ROOT, container_environment, instructions, last_stage, only

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


def test_the_process_is_not_root_and_kubernetes_can_tell() -> None:
    user, group = only(last_stage(), "USER").arguments.split(":")
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
        assert script in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
        with pytest.raises(SystemExit) as stopped:
            cli.main([*arguments, "--help"])
        assert stopped.value.code == 0
    assert "--rest.port" in capsys.readouterr().out  # both go by the same settings


def test_what_it_copies_exists_and_is_all_that_is_sent_to_the_builder() -> None:
    copies = [step for step in instructions(DOCKERFILE.read_text()) if step.name == "COPY"]
    sources = {word for step in copies if "--from" not in step.arguments for word in step.words[:-1]}
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    assert {rule[1:] for rule in rules if rule.startswith("!")} == sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_it_installs_an_extra_of_the_package_and_tells_its_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    steps = instructions(DOCKERFILE.read_text())
    extras = [step.pairs["EXTRA"] for step in steps if step.name == "ARG" and step.arguments.startswith("EXTRA=")]
    assert extras == ["cpu"]
    assert set(extras) <= set(project["optional-dependencies"])
    labels = only(steps, "LABEL").pairs
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == project["license"]
