"""Part 7: comparison of our services with those of another checkout, in the same rounds of the same run.

Only the source tree differs. Settings, weights, interpreter, packages and load are the same, so flags must be valid for
both.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.fleet import ServiceSpec, start_fleet
from benchmarks.measurements import Findings
from benchmarks.sampling import Sample, record
from benchmarks.scenarios import Scenario
from benchmarks.served import check_responses, load_in_rounds, scenarios
from benchmarks.services import our_service
from benchmarks.sizes import Effort

COMPARED: Final = (("small", "bfloat16"), ("small", "float32"), ("base", "bfloat16"))
"""Sizes and dtypes, on the openvino engine."""
LONE_LENGTHS: Final = (32, 512)
"""Lengths of lone requests, which are compared by latency."""
LONE: Final = tuple(Scenario("rest", "pooled_output", 1, 1, length=length) for length in LONE_LENGTHS)
RATIOS: Final = ("sequences_per_s", "p50_ms", "p99_ms", "server_cpu_us")
"""The server's CPU time per request depends least on other processes."""
OTHER: Final = ", other checkout"


def measure_beside(effort: Effort, checkout: Path) -> Findings:
    """Measures our services and those of the other checkout."""
    findings = Findings("beside", effort.quick)
    findings.notes.append(f"The other checkout is at {_commit_of(checkout)}.")
    ours = [our_service("openvino", dtype, size=size) for size, dtype in COMPARED if size in effort.sizes]
    with start_fleet(with_others(ours, checkout)) as fleet:
        check_responses(fleet, findings)
        sampled = load_in_rounds(fleet, lambda spec: [*scenarios(spec, "pooled_output"), *LONE], effort)
    for (name, scenario), samples in sampled.items():
        record(findings, samples, service=name, **scenario.labels)
    record_ratios(findings, sampled)
    return findings


def with_others(specs: Sequence[ServiceSpec], checkout: Path) -> list[ServiceSpec]:
    """Adds the same service of the other checkout after each service."""
    return [
        both for spec in specs for both in (spec, dataclasses.replace(spec, name=spec.name + OTHER, checkout=checkout))
    ]


def record_ratios(findings: Findings, sampled: Mapping[tuple[str, Scenario], Sequence[Sample]]) -> None:
    """Adds the ratio of ours to theirs of each figure, by service, scenario and round.

    Args:
        findings: Findings to add to.
        sampled: The samples of each service and scenario, one per round.
    """
    for (name, scenario), ours in sampled.items():
        theirs = sampled.get((name + OTHER, scenario), ())
        pairs = [(a.figures, b.figures) for a, b in zip(ours, theirs, strict=False)]
        for figure in RATIOS:
            quotients = [a[figure] / b[figure] for a, b in pairs if figure in a and b.get(figure)]
            findings.add(f"{figure}_ratio", quotients, service=name, **scenario.labels)


def _commit_of(checkout: Path) -> str:
    command = ("git", "-C", str(checkout), "rev-parse", "--short", "HEAD")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
