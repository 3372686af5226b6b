"""The deployment's files, read as far as the tests look into them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel

ROOT: Final = Path(__file__).parents[3]
DOCKERFILE: Final = ROOT / "Dockerfile"
COMPOSE_FILE: Final = ROOT / "docker-compose.yml"
PROMETHEUS_FILE: Final = ROOT / "deploy/prometheus/prometheus.yml"
SERVICE: Final = "electra-serve"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile, its continuation lines joined."""

    name: str
    arguments: str

    @property
    def words(self) -> list[str]:
        """The arguments that are no `--flag`."""
        return [word for word in shlex.split(self.arguments) if not word.startswith("--")]

    @property
    def pairs(self) -> dict[str, str]:
        """The arguments as `key=value`."""
        return dict(word.split("=", 1) for word in shlex.split(self.arguments))

    @property
    def argv(self) -> list[str]:
        """The command in exec form that ends the arguments."""
        command: list[str] = json.loads(self.arguments[self.arguments.index("[") :])
        return command


def instructions(text: str) -> list[Instruction]:
    """Splits a Dockerfile.

    Example:
        >>> [step.arguments for step in instructions("# Why\\nENV A=1 \\\\\\n    B=2\\nUSER 1")]
        ['A=1     B=2', '1']
    """
    code = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    return [Instruction(*line.split(maxsplit=1)) for line in code.splitlines() if line.strip()]


def stage(name: str) -> list[Instruction]:
    """The instructions of the image that a target of the Dockerfile makes, after those of the stage it is made from."""
    steps = instructions(DOCKERFILE.read_text())
    starts = [number for number, step in enumerate(steps) if step.name == "FROM"]
    for start, end in zip(starts, [*starts[1:], len(steps)], strict=True):
        source, *named = steps[start].words
        if named == ["AS", name]:
            return [*stage(source), *steps[start:end]]
    return []


def stage_names() -> list[str]:
    """In the order of the Dockerfile, whose last target is the default."""
    return [step.words[-1] for step in instructions(DOCKERFILE.read_text()) if step.name == "FROM"]


def last_stage() -> list[Instruction]:
    """The Dockerfile's instructions for the image that is run."""
    return stage(stage_names()[-1])


def only(steps: list[Instruction], name: str) -> Instruction:
    """The one instruction of that name."""
    (step,) = (step for step in steps if step.name == name)
    return step


class Healthcheck(BaseModel):
    test: list[str]


class Limits(BaseModel):
    cpus: str
    memory: str
    pids: int


class Resources(BaseModel):
    limits: Limits


class Deploy(BaseModel):
    resources: Resources


class Service(BaseModel):
    """The parts of a Compose service that the tests read; all of them are required."""

    image: str
    environment: dict[str, str] = {}
    ports: list[str]
    volumes: list[str] = []
    healthcheck: Healthcheck
    stop_grace_period: str = "10s"
    read_only: bool
    cap_drop: list[str]
    security_opt: list[str]
    deploy: Deploy


class Compose(BaseModel):
    services: dict[str, Service]
    volumes: dict[str, None]


def compose() -> Compose:
    """docker-compose.yml."""
    return Compose.model_validate(yaml.safe_load(COMPOSE_FILE.read_text()))


def container_environment() -> dict[str, str]:
    """Every variable that the service's container has: the image's, and over them Compose's."""
    image = {key: value for step in last_stage() if step.name == "ENV" for key, value in step.pairs.items()}
    return image | compose().services[SERVICE].environment
