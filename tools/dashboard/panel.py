"""Panel of the dashboard."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """One expression.

    Attributes:
        expr: PromQL.
        legend: Name of its series.
        heatmap: True if its series are a histogram's buckets.
    """

    expr: str
    legend: str
    heatmap: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: Heading.
        about: Description, shown at its corner.
        queries: Expressions that it shows.
        unit: Grafana's name of the unit.
        stacked: True if series are added.
        kind: Grafana's name of the kind of panel.
        bound: Threshold of the alert; values above it are red.
    """

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    stacked: bool = False
    kind: str = "timeseries"
    bound: float | None = None
