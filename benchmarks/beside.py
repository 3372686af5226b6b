"""Comparison of our services with those of another checkout, in the same rounds of the same run.

Only the source tree differs. Settings, weights, interpreter, packages and load are the same, so flags must be valid for
both.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.fleet import ServiceSpec
from benchmarks.measurements import Findings
from benchmarks.sampling import Sample
from benchmarks.scenarios import Scenario
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


def with_others(specs: Sequence[ServiceSpec], sizes: Sequence[str], checkout: Path) -> list[ServiceSpec]:
    """Adds the compared services, and after each of them the same service of the other checkout.

    Args:
        specs: Other services.
        sizes: Sizes of the compared services.
        checkout: The other source tree.
    """
    compared = {spec.name: spec for spec in _compared(sizes)}
    found: list[ServiceSpec] = []
    for spec in {**{spec.name: spec for spec in specs}, **compared}.values():
        found.append(spec)
        if spec.name in compared:
            found.append(dataclasses.replace(spec, name=spec.name + OTHER, checkout=checkout))
    return found


def lone_scenarios(spec: ServiceSpec, effort: Effort) -> Sequence[Scenario]:
    """Returns lone requests for compared services, none for others."""
    compared = {spec.name for spec in _compared(effort.sizes)}
    return LONE if effort.beside is not None and spec.name.removesuffix(OTHER) in compared else ()


def commit_of(checkout: Path) -> str:
    """Returns the commit of a checkout."""
    command = ("git", "-C", str(checkout), "rev-parse", "--short", "HEAD")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


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


def _compared(sizes: Sequence[str]) -> list[ServiceSpec]:
    return [our_service("openvino", dtype, size=size) for size, dtype in COMPARED if size in sizes]
