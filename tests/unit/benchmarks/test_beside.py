from __future__ import annotations

from pathlib import Path

from benchmarks.beside import OTHER, record_ratios, with_others
from benchmarks.fleet import ROOT, ServiceSpec
from benchmarks.measurements import Findings
from benchmarks.sampling import Sample
from benchmarks.scenarios import Scenario

MANY = Scenario("rest", "pooled_output", 64, 1)
CHECKOUT = Path("/elsewhere")


def sample(rate: float, **figures: float) -> Sample:
    return Sample({"sequences_per_s": rate, **figures}, errors=0, counted=None)


def test_a_ratio_is_of_one_round() -> None:
    findings = Findings("served", quick=False, machine={}, created="")
    ours = [sample(300.0, p50_ms=10.0), sample(100.0)]
    theirs = [sample(200.0, p50_ms=20.0), sample(50.0, p50_ms=1.0)]
    record_ratios(findings, {("a", MANY): ours, ("a" + OTHER, MANY): theirs, ("b", MANY): ours})
    found = {measured.quantity: measured.samples for measured in findings.measurements}
    assert found == {"sequences_per_s_ratio": (1.5, 2.0), "p50_ms_ratio": (0.5,)}


def test_the_other_checkouts_service_comes_next() -> None:
    specs = with_others([ServiceSpec("small/bfloat16", _command), ServiceSpec("base/bfloat16", _command)], CHECKOUT)
    assert [(spec.name, spec.checkout) for spec in specs] == [
        ("small/bfloat16", ROOT),
        ("small/bfloat16" + OTHER, CHECKOUT),
        ("base/bfloat16", ROOT),
        ("base/bfloat16" + OTHER, CHECKOUT),
    ]


def _command(_rest: int, _grpc: int) -> tuple[str, ...]:
    return ()
