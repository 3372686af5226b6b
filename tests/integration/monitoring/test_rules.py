"""Rules, dashboard and metrics are valid, at one with one another, and explained."""

from __future__ import annotations

import json
import re
from typing import Final

import pytest

from electra_serve.observability.metrics import TRANSPORTS, Metrics
from tests.integration.monitoring.prometheus import (
    ALERTS_FILE,
    PROMETHEUS_FOLDER,
    RECORDING_FILE,
    RULES_TEST_FILE,
    needs_prometheus,
    promtool,
)
from tests.integration.monitoring.rules import Rule, read_cases, read_rules
from tests.integration.process import ROOT
from tools.dashboard.__main__ import DASHBOARD_FILE
from tools.dashboard.grafana import dashboard
from tools.dashboard.rows import queries

NAMES: Final = re.compile(r"[\w:]*\b(?:electra|process)_[\w:]+")
RUNBOOK: Final = (ROOT / "docs/alerts.md").read_text()
each_alert = pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.alert) for rule in read_rules(ALERTS_FILE)])


def known_names() -> set[str]:
    """Names of /metrics, and those that the rules record."""
    metrics = Metrics("test")
    metrics.create_model_series("demo")
    scraped = {line.split("{")[0].split(" ")[0] for line in metrics.exposition()[0].decode().splitlines()}
    return scraped | {rule.record for rule in read_rules(RECORDING_FILE)}


@needs_prometheus
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    assert promtool("check", "rules", "--lint-fatal", str(ALERTS_FILE), str(RECORDING_FILE)).returncode == 0
    assert promtool("check", "config", "--lint-fatal", str(PROMETHEUS_FOLDER / "prometheus.yml")).returncode == 0


@needs_prometheus
def test_every_alert_fires_and_is_quiet_when_it_should() -> None:
    result = promtool("test", "rules", str(RULES_TEST_FILE))
    assert (result.returncode, result.stderr) == (0, "")


@needs_prometheus
def test_promtool_finds_nothing_wrong_with_the_names_of_metrics() -> None:
    metrics = Metrics("test")
    metrics.create_model_series("demo")
    result = promtool("check", "metrics", stdin=metrics.exposition()[0].decode())
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@each_alert
def test_an_alert_has_cases_for_promtool_in_which_it_fires_and_is_quiet(rule: Rule) -> None:
    assert {bool(case.exp_alerts) for case in read_cases() if case.alertname == rule.alert} == {True, False}


@each_alert
def test_an_alert_says_how_urgent_it_is_and_is_explained(rule: Rule) -> None:
    assert rule.labels.keys() == {"severity"}
    assert rule.labels["severity"] in {"critical", "warning"}
    assert rule.annotations["runbook"] == f"docs/alerts.md#{rule.alert.lower()}"
    assert f"\n### {rule.alert}\n" in RUNBOOK


def test_recorded_names_say_level_metric_and_operation() -> None:
    wrong = [
        rule.record
        for rule in read_rules(RECORDING_FILE)
        if not re.fullmatch(r"[a-z_]+:electra_[a-z_]+:[a-z0-9_]+", rule.record)
    ]
    assert wrong == []


def test_every_name_in_a_query_is_there() -> None:
    known = known_names()
    used = {name for expr in (*queries(), *(rule.expr for rule in read_rules())) for name in NAMES.findall(expr)}
    assert len(used) > 30
    assert used - known == set()


def test_no_query_leaves_out_a_transport() -> None:
    expressions = [*queries(), *(rule.expr for rule in read_rules())]
    selecting = re.compile(r"\btransport\s*(=|!)")
    assert [expr for expr in expressions if selecting.search(expr)] == []
    assert any("by (transport)" in expr for expr in expressions)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_cases_for_promtool_have_requests_of_every_transport(transport: str) -> None:
    assert f'electra_requests_total{{job="electra-serve", instance="a", model="m", transport="{transport}"' in (
        RULES_TEST_FILE.read_text()
    )


def test_the_dashboard_is_up_to_date() -> None:
    assert json.loads(DASHBOARD_FILE.read_text()) == dashboard()


def test_panels_neither_overlap_nor_share_a_number() -> None:
    panels = json.loads(DASHBOARD_FILE.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23
