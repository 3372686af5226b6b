"""A real Prometheus server, from Debian's package `prometheus`, that scrapes the configured targets."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest
import yaml

from tests.integration.process import ROOT, free_port
from tests.waiting import wait_until

PROMETHEUS_FOLDER: Final = ROOT / "deploy/prometheus"
ALERTS_FILE: Final = PROMETHEUS_FOLDER / "rules/alerts.yml"
RECORDING_FILE: Final = PROMETHEUS_FOLDER / "rules/recording.yml"
RULES_TEST_FILE: Final = PROMETHEUS_FOLDER / "tests/alerts.yml"
SCRAPE_S: Final = 1
NOT_HERE: Final = "needs Prometheus: apt-get install prometheus"

needs_prometheus = pytest.mark.skipif(not (shutil.which("prometheus") and shutil.which("promtool")), reason=NOT_HERE)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """The server's HTTP API."""

    client: httpx.Client

    def query(self, expr: str) -> list[dict[str, object]]:
        """Returns the samples of an instant query; fails for an invalid expression."""
        response = self.client.get("/api/v1/query", params={"query": expr})
        assert response.status_code == 200, (expr, response.text)
        found: list[dict[str, object]] = response.json()["data"]["result"]
        return found

    def rules(self) -> dict[str, dict[str, object]]:
        """Every rule that it evaluates, by name."""
        groups = self.client.get("/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}


def promtool(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs promtool; its output is in stdout and stderr."""
    return subprocess.run(
        ["promtool", *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Starts it with the rules of the deployment, scraping `target` each second, and kills it in the end."""
    settings = yaml.safe_load((PROMETHEUS_FOLDER / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    settings["rule_files"] = [str(PROMETHEUS_FOLDER / "rules/*.yml")]
    settings["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
            wait_until(lambda: _is_ready(client))
            yield Prometheus(client)
    finally:
        popen.kill()
        popen.wait()


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
