"""The rule files, read as far as the tests look into them."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, Field

from tests.integration.monitoring.prometheus import ALERTS_FILE, RECORDING_FILE, RULES_TEST_FILE


class Rule(BaseModel, extra="forbid"):
    """One rule; `record` or `alert` is its name."""

    expr: str
    record: str = ""
    alert: str = ""
    for_: str = Field("", alias="for")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class AlertCase(BaseModel):
    """Expectation of one test of an alert at one time."""

    alertname: str
    exp_alerts: list[object] = []


def read_rules(*files: Path) -> list[Rule]:
    """Returns every rule of some files, by default of both."""
    groups = (group for file in files or (RECORDING_FILE, ALERTS_FILE) for group in _groups(file))
    return [Rule.model_validate(rule) for group in groups for rule in group["rules"]]


def read_cases() -> list[AlertCase]:
    """Every case of the tests for promtool."""
    tests = yaml.safe_load(RULES_TEST_FILE.read_text())["tests"]
    return [AlertCase.model_validate(case) for test in tests for case in test["alert_rule_test"]]


def _groups(file: Path) -> list[dict[str, list[dict[str, object]]]]:
    groups: list[dict[str, list[dict[str, object]]]] = yaml.safe_load(file.read_text())["groups"]
    return groups
