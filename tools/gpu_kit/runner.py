"""Runs stages one after the other, each in a process group with a time limit, and writes results as they come.

A stage that fails or is cut off does not stop the next. Results are `results.json`, `report.md` and a log of each
stage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.machine import describe_machine
from tools.gpu_kit.plan import STAGES, TOTAL_S, Stage, limit_of
from tools.gpu_kit.records import read_records
from tools.gpu_kit.report import Results, StageResult, render

POLL_S: Final = 1.0
MAX_LOG_BYTES: Final = 4 * 10**6
ENVIRONMENT: Final = {
    "KERAS_BACKEND": "jax",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "ELECTRA_HUB__OFFLINE": "true",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(slots=True)
class Runner:
    """Runs stages and keeps their results on disk.

    Attributes:
        device: `gpu` or `cpu`.
        work: For records and whatever stages make.
        out: For results.
        deadline: When everything must have ended, as `time.time()`.
        results: What is known so far.
    """

    device: str
    work: Path
    out: Path
    deadline: float
    results: Results

    def run(self, stages: list[Stage]) -> bool:
        """Runs `stages` and returns whether all of them passed."""
        for number, stage in enumerate(stages):
            limit_s = limit_of(stage, stages[number + 1 :], self.deadline - time.time())
            result = StageResult(stage.name, "running", limit_s)
            self.results.stages.append(result)
            self._run_stage(result)
            self._write()
            print(f"{stage.name}: {result.state} after {result.seconds:.0f} s", flush=True)
        return all(result.state == "passed" for result in self.results.stages)

    def _run_stage(self, result: StageResult) -> None:
        log_path, started = self.out / f"{result.name}.log", time.time()
        records = self.work / f"{result.name}.jsonl"
        command = [sys.executable, "-m", f"tools.gpu_kit.stages.{result.name}"]
        command += [f"--device={self.device}", f"--records={records}", f"--work={self.work}"]
        environment = {**os.environ, **ENVIRONMENT} | ({"JAX_PLATFORMS": "cpu"} if self.device == "cpu" else {})
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            while (code := process.poll()) is None and time.time() - started < result.limit_s:
                time.sleep(POLL_S)
                result.seconds = time.time() - started
                result.records = list(read_records(records))
                self._write()
        finally:
            _end(process)
        result.seconds, result.records = time.time() - started, list(read_records(records))
        result.state = "cut off" if code is None else "failed" if code else "passed"
        _shorten(log_path)

    def _write(self) -> None:
        (self.out / "results.json").write_text(json.dumps(asdict(self.results), indent=1) + "\n", encoding="utf-8")
        (self.out / "report.md").write_text(render(self.results), encoding="utf-8")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the stage's process group: also services that it left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(3)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _shorten(log: Path) -> None:
    """Keeps the end of a log that is too long to be taken along."""
    if log.stat().st_size > MAX_LOG_BYTES:
        log.write_bytes(log.read_bytes()[-MAX_LOG_BYTES:])


def main() -> int:
    """Runs the stages asked for; ends with 1 unless all of them passed."""
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser("python3 run.py", description=__doc__)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--stage", action="append", choices=names, help="run this one only; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="folder for results (default: ./gpu-kit-results)")
    parser.add_argument("--total-s", type=float, default=TOTAL_S, help="seconds for everything (default: %(default)s)")
    parser.add_argument("--started", type=float, default=time.time(), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, required=True, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the stage that runs
    flags.out.mkdir(parents=True, exist_ok=True)
    results = Results(flags.device, dict(describe_machine()))
    runner = Runner(flags.device, flags.work, flags.out, flags.started + flags.total_s, results)
    passed = runner.run([stage for stage in STAGES if stage.name in (flags.stage or names)])
    print(f"results are in {flags.out}", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
