"""Panel of the dashboard."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """One expression.

    Attributes:
        expr: PromQL.
        legend: What its series are called.
        heatmap: Whether its series are a histogram's buckets.
    """

    expr: str
    legend: str
    heatmap: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Attributes:
        title: Above it.
        about: Shown on its corner: what to read from it.
        queries: What it shows.
        unit: Grafana's name of the unit.
        stacked: Whether series add up.
        kind: Grafana's name of the kind of panel.
        bound: From where on it is drawn red; as the alerts have it.
    """

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    stacked: bool = False
    kind: str = "timeseries"
    bound: float | None = None
