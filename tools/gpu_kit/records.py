"""Records of a stage: checks and measurements, one JSON object a line, written as they are made.

A stage that is cut off leaves what it had found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measurements import Findings

Record = dict[str, Any]


@dataclass(slots=True)
class Recorder(Findings):
    """Findings of a stage that are appended to a file at once.

    Attributes:
        path: The file.
        failed: Whether a check failed.
    """

    path: Path = field(kw_only=True)
    failed: bool = False

    def add(self, quantity: str, samples: Sequence[float], **labels: str | int) -> None:
        """Records samples of one quantity."""
        Findings.add(self, quantity, samples, **labels)
        if samples:
            found = self.measurements[-1]
            numbers = {"median": found.median, "low": found.low, "high": found.high, "samples": list(found.samples)}
            self._append({"quantity": quantity, "labels": labels, **numbers})

    def skip(self, name: str, reason: Exception) -> None:
        """Records what could not be measured."""
        Findings.skip(self, name, reason)
        self._append({"skipped": name, "reason": self.skipped[name]})

    def check(self, name: str, passed: object, detail: object = "") -> None:
        """Records whether something holds."""
        self.failed |= not passed
        self._append({"check": name, "passed": bool(passed), "detail": str(detail)[:500]})

    def _append(self, record: Record) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file that may not exist yet, or be written right now."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)
