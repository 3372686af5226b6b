"""One sample of a service under load: its clients' figures and its own counts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.fleet import RunningService, resumed
from benchmarks.measurements import Findings
from benchmarks.scenarios import Scenario, run_scenario
from benchmarks.scrape import Counted, scrape

FIGURES: Final = ("sequences_per_s", "p50_ms", "p90_ms", "p99_ms", "server_cpu_us", "generator_cpu")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of one service under one load.

    Attributes:
        figures: Those of `FIGURES` that exist: without a response there are no latencies.
        errors: Number of failed requests.
        counted: The service's own counts; None if it has no metrics or ran nothing.
    """

    figures: Mapping[str, float]
    errors: int
    counted: Counted | None


def load_once(service: RunningService, scenario: Scenario, factor: float) -> Sample:
    """Loads a service once and reads its counts."""
    with resumed(service):
        before = scrape(service) if service.spec.metrics else None
        figures = run_scenario(service, scenario, factor)
        counted = scrape(service).since(before) if before is not None else None
    log.info("%s, %s: %.0f/s", service.spec.name, " ".join(scenario.labels.values()), figures["sequences_per_s"])
    numbers = {name: float(figures[name]) for name in FIGURES if figures[name] is not None}
    return Sample(numbers, sum(figures["errors"].values()), counted)


def record(findings: Findings, samples: Sequence[Sample], **labels: str | int) -> None:
    """Adds the samples of one service and scenario to `findings`."""
    for name in FIGURES:
        findings.add(name, [sample.figures[name] for sample in samples if name in sample.figures], **labels)
    findings.add("errors", [sample.errors for sample in samples], **labels)
    counted = [sample.counted for sample in samples if sample.counted is not None]
    findings.add("padded_per_real", [found.padded_per_real for found in counted], **labels)
    findings.add("batch_sequences", [found.batch_sequences for found in counted], **labels)
    findings.add("compilations", [found.compilations for found in counted], **labels)
