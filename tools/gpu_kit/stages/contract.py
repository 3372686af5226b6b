"""The engine contract suite on the device, and exactness of published architectures against float32 on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from tools.gpu_kit.stages.exactness import measure_exactness
from tools.gpu_kit.stages.stage import Bench, run_stage

SUITE: Final = ("tests/contract/test_engines.py", "tests/contract/test_engines_on_jax.py")
MEMORY_FRACTION: Final = "0.1"
"""Part of the card that the suite may take: the test of short memory fills it."""


def run_suite(bench: Bench) -> None:
    """Runs the suite and records each test that failed."""
    report = bench.work / "contract.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *SUITE]
    environment = {**os.environ, "ENGINE_DEVICE": bench.device, "XLA_CLIENT_MEM_FRACTION": MEMORY_FRACTION}
    subprocess.run(command, env=environment, check=False)
    _record(bench, report)


def _record(bench: Bench, report: Path) -> None:
    cases = list(ET.parse(report).iter("testcase"))
    failed = 0
    for case in cases:
        faults = [fault for fault in case if fault.tag in {"failure", "error"}]
        failed += bool(faults)
        for fault in faults:
            bench.recorder.check(str(case.get("name")), passed=False, detail=fault.get("message", ""))
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - failed - skipped
    bench.recorder.check(
        "contract suite", not failed and passed, f"{passed} passed, {failed} failed, {skipped} skipped"
    )


if __name__ == "__main__":
    sys.exit(run_stage("contract", run_suite, measure_exactness))
