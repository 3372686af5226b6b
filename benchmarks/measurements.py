"""Results of a part as labeled samples, on disk as JSON.

A measurement has samples of one quantity, and labels that name what was measured. The report selects by labels, so a
part can add a label or a quantity without a change elsewhere.
"""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import describe_machine

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
"""Results of full runs; committed."""
QUICK_RESULTS: Final = ROOT / "benchmarks" / ".cache" / "quick-results"
"""Results of quick runs, kept apart from full ones; ignored by git."""
Labels = Mapping[str, str | int]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Samples of one quantity.

    Attributes:
        quantity: Quantity with its unit, such as `sequences_per_s`.
        labels: Names of what was measured, such as `{"encoder": "openvino/bfloat16", "shape": "8x128"}`.
        samples: One per round.

    Example:
        >>> found = Measurement("start_s", {"engine": "openvino"}, (3.0, 1.0, 2.0))
        >>> found.median, found.low, found.high
        (2.0, 1.0, 3.0)
    """

    quantity: str
    labels: Labels
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median sample."""
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        """Least sample."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """Largest sample."""
        return max(self.samples)


@dataclass(slots=True)
class Findings:
    """All results of one part.

    Attributes:
        part: Name of the part.
        quick: The run was quick, and its numbers mean little.
        measurements: Measurements in their order.
        skipped: Reasons by what could not be measured here.
        notes: Remarks for readers of the numbers.
        machine: Description of the machine.
        created: Time in UTC.
    """

    part: str
    quick: bool
    measurements: list[Measurement] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    machine: Mapping[str, str | int] = field(default_factory=describe_machine)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def add(self, quantity: str, samples: Sequence[float], **labels: str | int) -> None:
        """Adds one measurement, unless there are no samples because a quick run saw no response."""
        if samples:
            self.measurements.append(Measurement(quantity, labels, tuple(map(float, samples))))

    def skip(self, name: str, reason: Exception) -> None:
        """Records the reason why something cannot be measured here."""
        self.skipped[name] = str(reason).replace(str(ROOT), ".")
        log.warning("%s is not measured: %s", name, reason)

    def select(self, quantity: str, **labels: str | int) -> list[Measurement]:
        """Returns the measurements of `quantity` that have all of `labels`.

        Example:
            >>> findings = Findings("demo", quick=True)
            >>> findings.add("start_s", [1.0], engine="a")
            >>> findings.add("start_s", [2.0], engine="b")
            >>> [found.median for found in findings.select("start_s", engine="b")]
            [2.0]
        """
        return [
            found
            for found in self.measurements
            if found.quantity == quantity and all(found.labels.get(name) == value for name, value in labels.items())
        ]

    def median(self, quantity: str, **labels: str | int) -> float | None:
        """Returns the median of the first match, or None."""
        found = self.select(quantity, **labels)
        return found[0].median if found else None

    def write(self, folder: Path) -> Path:
        """Writes `<part>.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.part}.json"
        content = {
            "part": self.part,
            "quick": self.quick,
            "created": self.created,
            "machine": dict(self.machine),
            "notes": self.notes,
            "skipped": self.skipped,
            "measurements": [_to_json(found) for found in self.measurements],
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path


def read_findings(part: str, folder: Path) -> Findings | None:
    """Reads the results of a part; None if it has not run."""
    path = folder / f"{part}.json"
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Findings(
        part=content["part"],
        quick=content["quick"],
        measurements=[
            Measurement(found["quantity"], found["labels"], tuple(found["samples"]))
            for found in content["measurements"]
        ],
        skipped=content["skipped"],
        notes=content["notes"],
        machine=content["machine"],
        created=content["created"],
    )


def _to_json(found: Measurement) -> dict[str, object]:
    return {
        "quantity": found.quantity,
        "labels": dict(found.labels),
        "median": _rounded(found.median),
        "low": _rounded(found.low),
        "high": _rounded(found.high),
        "samples": [_rounded(sample) for sample in found.samples],
    }


def _rounded(number: float) -> float:
    """Rounds to five digits: more would be noise."""
    return float(f"{number:.5g}")
