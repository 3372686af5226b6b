"""Markdown of the kit's results: goals, checks and measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tools.gpu_kit.records import Record


@dataclass(slots=True)
class StageResult:
    """Outcome of a stage.

    Attributes:
        name: The stage.
        state: `running`, `passed`, `failed` or `cut off`.
        limit_s: Seconds that it may take.
        seconds: Seconds that it took so far.
        records: Its checks and measurements.
    """

    name: str
    state: str
    limit_s: float
    seconds: float = 0.0
    records: list[Record] = field(default_factory=list)


@dataclass(slots=True)
class Results:
    """Everything that is known so far.

    Attributes:
        device: `gpu` or `cpu`.
        machine: From `benchmarks.machine.describe_machine`.
        stages: In the order they ran.
    """

    device: str
    machine: dict[str, str | int]
    stages: list[StageResult] = field(default_factory=list)

    def median(self, quantity: str, **labels: str) -> float | None:
        """The median of the first measurement that has `labels`; None if there is none."""
        for stage in self.stages:
            for record in stage.records:
                if record.get("quantity") == quantity and labels.items() <= record["labels"].items():
                    return float(record["median"])
        return None


@dataclass(frozen=True, slots=True)
class Goal:
    """A number to reach.

    Attributes:
        text: Says what.
        number: Computes it; None if something was not measured.
        reached: Decides.
    """

    text: str
    number: Callable[[Results], float | None]
    reached: Callable[[float], bool]


def ratio(over: float | None, under: float | None) -> float | None:
    """Returns over / under; None if one is missing."""
    return over / under if over is not None and under else None


def _against_torch(results: Results) -> float | None:
    labels = {"size": "base", "against": "torch SDPA"}
    ours, theirs = (_natural_mix(results, encoder, labels) for encoder in ("jax engine", "torch SDPA"))
    return ratio(ours, theirs)


def _natural_mix(results: Results, encoder: str, labels: dict[str, str]) -> float | None:
    for stage in results.stages:
        for record in stage.records:
            found = record.get("labels", {})
            wanted = {**labels, "encoder": encoder}
            if record.get("quantity") == "tokens_per_s" and "order" in found and wanted.items() <= found.items():
                return float(record["median"])
    return None


def _of_matrix_rate(results: Results) -> float | None:
    rates = [
        float(record["high"])
        for stage in results.stages
        for record in stage.records
        if record.get("quantity") == "product_gflop_per_s"
    ]
    reached = results.median("gflop_per_s", encoder="jax engine", size="base", shape="64x128")
    return ratio(reached, max(rates, default=None))


GOALS: Final = (
    Goal("base, natural mix: tokens/s over torch SDPA's, at least 1.5", _against_torch, lambda x: x >= 1.5),
    Goal("base at (64, 128): fraction of the matrix rate, at least 0.5", _of_matrix_rate, lambda x: x >= 0.5),
    Goal(
        "base: seconds to READY with a warm compilation cache, at most 30",
        lambda results: results.median("ready_s", size="base", cache="warm"),
        lambda x: x <= 30,
    ),
    Goal(
        "base: seconds to READY without a compilation cache, at most 90",
        lambda results: results.median("ready_s", size="base", cache="none"),
        lambda x: x <= 90,
    ),
    Goal(
        "base in float32: largest difference from the CPU, at most 1e-5",
        lambda results: results.median("largest_difference", size="base", dtype="float32"),
        lambda x: x <= 1e-5,
    ),
    Goal(
        "base in bfloat16: least cosine per token, at least 0.9995",
        lambda results: results.median("least_cosine", size="base", dtype="bfloat16"),
        lambda x: x >= 0.9995,
    ),
)


def render(results: Results) -> str:
    """The whole report."""
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    lines = ["# GPU kit", "", f"Device: {results.device}. Machine: {machine}.", "", "## Goals", ""]
    lines += _table(("goal", "found", "reached"), _goal_rows(results))
    lines += ["", "## Stages", "", *_table(("stage", "state", "seconds", "limit"), _stage_rows(results))]
    for stage in results.stages:
        lines += ["", f"## {stage.name}", "", *_sections(stage)]
    return "\n".join(lines) + "\n"


def _goal_rows(results: Results) -> Iterator[tuple[str, str, str]]:
    for goal in GOALS:
        found = goal.number(results)
        if found is None:
            yield goal.text, "not measured", ""
        else:
            yield goal.text, f"{found:.4g}", _yes(goal.reached(found))


def _stage_rows(results: Results) -> Iterator[tuple[str, str, str, str]]:
    for stage in results.stages:
        yield stage.name, stage.state, f"{stage.seconds:.0f}", f"{stage.limit_s:.0f}"


def _sections(stage: StageResult) -> Iterator[str]:
    checks = [record for record in stage.records if "check" in record]
    numbers = [record for record in stage.records if "quantity" in record]
    if checks:
        rows = ((record["check"], _yes(record["passed"]), record["detail"]) for record in checks)
        yield from (*_table(("check", "passed", "detail"), rows), "")
    if numbers:
        yield from _table(("quantity", "of", "median", "low", "high"), map(_number_row, numbers))
    for record in stage.records:
        if "skipped" in record:
            yield from ("", f"Not measured: {record['skipped']}: {record['reason']}")


def _number_row(record: Record) -> tuple[str, ...]:
    labels = ", ".join(
        value if isinstance(value, str) else f"{name} {value}" for name, value in record["labels"].items()
    )
    return record["quantity"], labels, *(f"{record[name]:.5g}" for name in ("median", "low", "high"))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A table; bars and line ends in cells are replaced."""
    cells = [[" ".join(str(cell).replace("|", "/").split()) for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in ([*head], ["---"] * len(head), *cells)]


def _yes(passed: object) -> str:
    return "yes" if passed else "**no**"
