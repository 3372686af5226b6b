"""Markdown tables of measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.measurements import Measurement

Cell = Callable[[Measurement], str]


def number(value: float) -> str:
    """Formats with three digits, or all before the point.

    Example:
        >>> number(12345.6), number(12.345), number(0.01234), number(0.0)
        ('12,346', '12.3', '0.0123', '0')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(found: Measurement) -> str:
    """Formats the median with the least and the largest sample.

    Example:
        >>> spread(Measurement("start_s", {}, (1.0, 2.0, 4.0))), spread(Measurement("start_s", {}, (1.0,)))
        ('2 (1–4)', '1')
    """
    if len(found.samples) == 1:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Writes a table: the first column has names, the others numbers.

    Example:
        >>> table(["engine", "s"], [["jax", "1"]])
        ['| engine | s |', '|---|---:|', '| jax | 1 |', '']
    """
    rule = "|---|" + "---:|" * (len(head) - 1)
    return [_row(head), rule, *map(_row, rows), ""]


def pivot(found: Sequence[Measurement], row: str, column: str, cell: Cell = spread) -> list[str]:
    """Writes a table with a row for each value of one label and a column for each of another.

    Example:
        >>> measured = [Measurement("s", {"engine": "jax", "shape": "8x32"}, (1.0,))]
        >>> pivot(measured, "engine", "shape")
        ['| engine | 8x32 |', '|---|---:|', '| jax | 1 |', '']
    """
    rows = list(dict.fromkeys(str(measurement.labels[row]) for measurement in found))
    columns = list(dict.fromkeys(str(measurement.labels[column]) for measurement in found))
    cells = {(str(m.labels[row]), str(m.labels[column])): cell(m) for m in found}
    return table([row, *columns], [[name, *(cells.get((name, c), "") for c in columns)] for name in rows])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
