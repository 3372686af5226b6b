from __future__ import annotations

import pytest

from benchmarks.measurements import Findings, read_findings
from benchmarks.services import LITSERVE, ONNX_ROWS
from benchmarks.targets import TARGETS, judged, matrix_peak

MANY = {"load": "64x1", "mix": "natural", "output": "pooled_output", "transport": "rest"}


def findings(part: str) -> Findings:
    return Findings(part, quick=False, machine={}, created="")


def offline() -> Findings:
    found = findings("offline")
    for product, rates in {"1x1x1": [400.0, 500.0], "2x2x2": [200.0]}.items():
        found.add("product_gflop_per_s", rates, library="a", dtype="bfloat16", product=product, size="small")
    for shape, rate in {"1x32": 45.0, "8x128": 360.0, "4x512": 400.0}.items():
        found.add("gflop_per_s", [rate], encoder="openvino/bfloat16", size="small", shape=shape)
    return found


def served() -> Findings:
    found = findings("served")
    for service, rate, p99 in (
        ("openvino/bfloat16", 300.0, 400.0),
        (LITSERVE, 20.0, 4000.0),
        (ONNX_ROWS, 100.0, 800.0),
    ):
        found.add("sequences_per_s", [rate], service=service, **MANY)
        found.add("p99_ms", [p99], service=service, **MANY)
    for window, rate in {64: 310.0, 128: 320.0}.items():
        found.add("sequences_per_s", [rate], engine="openvino/bfloat16", window=window)
    return found


def test_the_peak_is_the_best_median() -> None:
    assert matrix_peak({"offline": offline()}, "bfloat16") == 450
    assert matrix_peak({"offline": offline()}, "int8") is None


@pytest.mark.parametrize(
    ("bound", "text", "expected"),
    [
        (0.70, "the same, small", 360 / 450),  # the least of the large shapes
        (0.88, "the same, REST", 300 / 320),  # of the best of the windows
        (22, "the same, bfloat16", 15),
        (3.3, "the same, bfloat16", 3),
        (0.4, "p99 at 64 clients against that service's, bfloat16", 0.5),
    ],
)
def test_what_was_got_is_computed_from_the_findings(bound: float, text: str, expected: float) -> None:
    results = {"offline": offline(), "served": served()}
    [got] = [found for target, found in judged(results) if (target.bound, target.text) == (bound, text)]
    assert got == pytest.approx(expected)


def test_what_was_not_measured_is_not_judged() -> None:
    assert [got for _, got in judged({})] == [None] * len(TARGETS)


def test_findings_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("results")
    found = served()
    found.skip("jax", ValueError("not here"))
    found.write(folder)
    assert read_findings("served", folder) == found
    assert read_findings("offline", folder) is None
