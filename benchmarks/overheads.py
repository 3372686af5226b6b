"""Part 4: cost of the front end, with an engine that computes nothing (`benchmarks.overhead`)."""

from __future__ import annotations

from typing import Final

from benchmarks.measurements import Findings
from benchmarks.overhead import ENGINE_S, FIGURES, engine_p50_ms, measure
from benchmarks.sizes import Effort

SECONDS: Final = 3.0


def measure_overheads(effort: Effort) -> Findings:
    """Measures the null service, pinned to one core, and a bare server."""
    findings = Findings("overheads", effort.quick)
    for server, scenarios in measure(rounds=effort.rounds, seconds=SECONDS * effort.load_factor).items():
        for scenario, rounds in scenarios.items():
            for name in FIGURES:
                findings.add(
                    name, [figures[name] for figures in rounds], server=server, scenario=" ".join(scenario.split())
                )
    for seconds in (0.0, ENGINE_S):
        findings.add("engine_p50_ms", [engine_p50_ms(seconds)], engine_ms=f"{seconds * 1e3:g}")
    return findings
