"""A real Prometheus scrapes the real service under traffic, and every query that is shipped finds something there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from benchmarks.load.clients import BackgroundLoad
from tests.integration.monitoring.prometheus import ALERTS_FILE, Prometheus, needs_prometheus, prometheus
from tests.integration.monitoring.rules import read_rules
from tests.integration.process import start
from tests.load.payload import named_requests
from tests.waiting import wait_until
from tools.dashboard.rows import queries

pytestmark = needs_prometheus

GRAFANA: Final = {'"$job"': '".*"', "$model": ".*", "$__rate_interval": "1m"}
"""Values that Grafana inserts for its variables if all are chosen."""
SCRAPES: Final = 5
MISTAKE: Final = {"token_ids": [[1, 10**8]]}


@pytest.fixture(scope="module")
def scraping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the service while it responded, rejected, and responded again."""
    service_folder, folder = tmp_path_factory.mktemp("service"), tmp_path_factory.mktemp("prometheus")
    with start(service_folder, "--log.format=json") as process:
        process.wait_ready()
        with prometheus(folder, f"127.0.0.1:{process.rest_port}") as server:
            _wait_for_scrapes(server, 1)
            with BackgroundLoad(process.endpoints, 6, named_requests(48)):
                for path, body in (("/v1/encode", MISTAKE), ("/v1/encode", {"model": "none", **MISTAKE})):
                    assert httpx.post(f"{process.url}{path}", json=body).status_code in {404, 422}
                _wait_for_scrapes(server, SCRAPES)
            _wait_for_rules(server)
            yield server


def test_every_query_of_the_dashboard_finds_something(scraping: Prometheus) -> None:
    written = [_as_grafana_sends(query) for query in queries()]
    assert len(written) > 30
    assert [query for query in written if not scraping.query(query)] == []


def test_the_dashboard_shows_the_traffic_there_was(scraping: Prometheus) -> None:
    codes = {str(sample["metric"]["code"]) for sample in scraping.query("sum by (code) (electra_requests_total) > 0")}  # type: ignore[index]
    assert codes == {"ok", "invalid_input", "model_not_found"}


def test_every_recording_rule_records(scraping: Prometheus) -> None:
    rules = read_rules()
    assert [rule.record for rule in rules if rule.record and not scraping.query(rule.record)] == []


def test_every_alert_is_evaluated_and_quiet(scraping: Prometheus) -> None:
    alerts = {rule.alert for rule in read_rules(ALERTS_FILE)}
    found = {name: rule for name, rule in scraping.rules().items() if name in alerts}
    assert found.keys() == alerts
    assert {str(rule["health"]) for rule in found.values()} == {"ok"}
    assert {name: rule["alerts"] for name, rule in found.items() if rule["alerts"]} == {}


def test_every_part_of_an_alert_finds_something(scraping: Prometheus) -> None:
    """An alert that compares what is not there is quiet for ever: each name in it must have a series."""
    names = {
        name for rule in read_rules(ALERTS_FILE) for name in re.findall(r"[\w:]*electra_[\w:]+|process_\w+", rule.expr)
    }
    assert len(names) >= 12
    assert [name for name in names if not scraping.query(name)] == []


def _wait_for_scrapes(server: Prometheus, number: int) -> None:
    wait_until(lambda: any(float(s["value"][1]) >= number for s in server.query("count_over_time(up[1m])")))  # type: ignore[index]


def _wait_for_rules(server: Prometheus) -> None:
    """The last rule takes what the others have recorded."""
    wait_until(lambda: all(rule["health"] == "ok" for rule in server.rules().values()))
    wait_until(lambda: bool(server.query("job_model:electra_padding:ratio_rate5m")))


def _as_grafana_sends(query: str) -> str:
    for variable, chosen in GRAFANA.items():
        query = query.replace(variable, chosen)
    assert "$" not in query
    return query
