"""Writes the Grafana dashboard: `python -m tools.dashboard`, with `--check` to fail where it is not up to date.

The dashboard is code, so that a panel is a line, and a review of a change shows what has changed. Rows are 24 wide, as
Grafana has it; every panel of a row is equally wide.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

DASHBOARD_FILE: Final = Path(__file__).parents[1] / "deploy/grafana/dashboards/electra-serve.json"
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24
HEIGHT: Final = 8
JOB: Final = 'job=~"$job"'
MODEL: Final = 'job=~"$job", model=~"$model"'
WINDOW: Final = "$__rate_interval"

Json: TypeAlias = Mapping[str, object]


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


def _quantiles(metric: str, *percents: int) -> tuple[Query, ...]:
    buckets = f"sum by (le) (rate({metric}_bucket{{{MODEL}}}[{WINDOW}]))"
    return tuple(Query(f"histogram_quantile({percent / 100:g}, {buckets})", f"p{percent}") for percent in percents)


def _buckets(metric: str) -> tuple[Query, ...]:
    return (Query(f"sum by (le) (increase({metric}_bucket{{{MODEL}}}[{WINDOW}]))", "{{le}}", heatmap=True),)


def _gauge(metric: str) -> Query:
    return Query(f"{metric}{{{MODEL}}}", "{{instance}} {{model}}")


ROWS: Final[Mapping[str, Sequence[Panel]]] = {
    "At a glance": (
        Panel(
            "Models ready",
            "Instances on which the model is ready, of those there are.",
            (Query(f"sum by (model) (electra_model_ready{{{MODEL}}})", "{{model}}"),),
            kind="stat",
        ),
        Panel(
            "Sequences/s",
            "What the engines computed.",
            (Query(f"sum(job_model:electra_sequences:rate5m{{{MODEL}}})", "sequences/s"),),
            kind="stat",
        ),
        Panel(
            "Refused for load",
            "Part of the requests that found no room. ElectraShedding is at 1 %.",
            (Query(f"max(job_model:electra_requests_shed:ratio_rate5m{{{MODEL}}})", "refused"),),
            "percentunit",
            kind="stat",
            bound=0.01,
        ),
        Panel(
            "p99",
            "One request in a hundred takes longer. ElectraSlow is at 1.024 s.",
            (Query(f"max(job_model:electra_request_seconds:p99_5m{{{MODEL}}})", "p99"),),
            "s",
            kind="stat",
            bound=1.024,
        ),
        Panel(
            "Failed by our fault",
            "Part of the requests. ElectraErrors is at 1 %.",
            (Query(f"max(job_model:electra_requests_failed:ratio_rate5m{{{MODEL}}})", "failed"),),
            "percentunit",
            kind="stat",
            bound=0.01,
        ),
        Panel(
            "Queued work",
            "Seconds that the engines should take for what waits, in the mean: what the autoscaler goes by.",
            (Query(f"max(job_model:electra_queued_work_seconds:avg{{{MODEL}}})", "queued"),),
            "s",
            kind="stat",
            bound=0.25,
        ),
    ),
    "Traffic": (
        Panel(
            "Requests by code",
            "`ok` and the slugs of errors: the same on both transports.",
            (
                Query(
                    f'sum by (code) (rate(electra_requests_total{{{JOB}, model=~"$model|"}}[{WINDOW}])) > 0', "{{code}}"
                ),
            ),
            "reqps",
            stacked=True,
        ),
        Panel(
            "Requests by transport and in flight",
            "In flight are those being worked on or waiting.",
            (
                Query(
                    f'sum by (transport) (rate(electra_requests_total{{{JOB}, model=~"$model|"}}[{WINDOW}]))',
                    "{{transport}}/s",
                ),
                Query(f"sum by (transport) (electra_requests_in_flight{{{JOB}}})", "{{transport}} in flight"),
            ),
        ),
        Panel(
            "Requests by instance",
            "Should be about alike. One at zero that is ready is ElectraNoTraffic; gRPC behind a plain balancer looks so.",
            (Query(f"sum by (instance) (rate(electra_requests_total{{{MODEL}}}[{WINDOW}]))", "{{instance}}"),),
            "reqps",
        ),
    ),
    "Latency by phase": (
        Panel(
            "Request",
            "From arrival to answer, refusals included.",
            _quantiles("electra_request_seconds", 50, 95, 99),
            "s",
            bound=1.024,
        ),
        Panel(
            "In the queue",
            "From admission to the start of its batch. Where this is most of the request, there is too little capacity.",
            _quantiles("electra_queue_wait_seconds", 50, 95, 99),
            "s",
        ),
        Panel(
            "In the engine",
            "One batch. Where this has grown and batches have not, the machine is slower.",
            _quantiles("electra_compute_seconds", 50, 95, 99),
            "s",
        ),
    ),
    "Queue": (
        Panel(
            "Queued work",
            "Seconds of the engines' time that wait on each instance. The autoscaler holds the mean at 0.25 s.",
            (_gauge("electra_queued_work_seconds"),),
            "s",
            bound=0.25,
        ),
        Panel(
            "Sequences that wait and run",
            "Bounded by batching.max_queue_sequences.",
            (
                Query(f"sum by (model) (electra_queued_sequences{{{MODEL}}})", "{{model}} waiting"),
                Query(f"sum by (model) (electra_running_sequences{{{MODEL}}})", "{{model}} running"),
            ),
        ),
        Panel(
            "Positions that wait",
            "Bounded by batching.max_queue_tokens.",
            (_gauge("electra_queued_tokens"),),
        ),
        Panel(
            "The oldest wait",
            "ElectraOldestWait is at 5 s for minutes.",
            (_gauge("electra_queue_oldest_wait_seconds"),),
            "s",
            bound=5,
        ),
    ),
    "Batches": (
        Panel(
            "Sequences in a batch",
            "Grows with load; ones only are an idle service or very long texts.",
            _buckets("electra_batch_sequences"),
            kind="heatmap",
        ),
        Panel(
            "Positions in a batch",
            "Padding included.",
            _buckets("electra_batch_tokens"),
            kind="heatmap",
        ),
        Panel(
            "Padding",
            "Part of the computed positions that were padding.",
            (
                Query(
                    f"1 - sum by (model) (rate(electra_real_tokens_total{{{MODEL}}}[{WINDOW}]))"
                    f" / sum by (model) (rate(electra_padded_tokens_total{{{MODEL}}}[{WINDOW}]))",
                    "{{model}}",
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Real positions/s",
            "The useful work.",
            (Query(f"sum by (model) (rate(electra_real_tokens_total{{{MODEL}}}[{WINDOW}]))", "{{model}}"),),
        ),
    ),
    "Engine": (
        Panel(
            "Busy",
            "Part of its time that each engine computes. At 1 the queue grows; the autoscaler holds the mean at 0.7.",
            (Query(f"instance_model:electra_engine_busy:ratio_rate5m{{{MODEL}}}", "{{instance}} {{model}}"),),
            "percentunit",
            bound=0.7,
        ),
        Panel(
            "Ready and alive",
            "1 is well. Alive falls when an engine is late with its batch.",
            (
                Query(f"min by (model) (electra_model_ready{{{MODEL}}})", "{{model}} ready"),
                Query(f"min by (model) (electra_engine_alive{{{MODEL}}})", "{{model}} alive"),
            ),
        ),
        Panel(
            "What must not happen",
            "Each should be 0: an alert stands behind every one of them.",
            (
                Query(f"sum(increase(electra_engine_failures_total{{{MODEL}}}[{WINDOW}]))", "engine raised"),
                Query(f"sum(increase(electra_non_finite_rows_total{{{MODEL}}}[{WINDOW}]))", "rows not finite"),
                Query(f"sum(increase(electra_out_of_memory_total{{{MODEL}}}[{WINDOW}]))", "short of memory"),
                Query(f"sum(electra_compilations_after_warm_up{{{MODEL}}})", "compilations after warm-up"),
                Query(
                    f'sum(increase(electra_model_loads_total{{{MODEL}, outcome="failed"}}[{WINDOW}]))', "failed loads"
                ),
            ),
        ),
        Panel(
            "Loading took",
            "From the start of loading to ready: what a new instance needs at least.",
            (_gauge("electra_model_load_seconds"),),
            "s",
        ),
    ),
    "Process": (
        Panel(
            "Memory",
            "Resident. Grows while models load and to the largest batch, then stays.",
            (Query(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"),),
            "bytes",
        ),
        Panel(
            "Cores",
            "CPU seconds per second.",
            (Query(f"rate(process_cpu_seconds_total{{{JOB}}}[{WINDOW}])", "{{instance}}"),),
        ),
        Panel(
            "Open files",
            "Connections are most of them.",
            (Query(f"process_open_fds{{{JOB}}}", "{{instance}}"),),
        ),
        Panel(
            "Up since",
            "Steps down at each restart.",
            (Query(f"time() - process_start_time_seconds{{{JOB}}}", "{{instance}}"),),
            "s",
        ),
        Panel(
            "Versions",
            "More than one during a rollout only.",
            (Query(f"count by (version) (electra_build_info{{{JOB}}})", "{{version}}"),),
        ),
    ),
}


def dashboard() -> Json:
    """The whole of it, as Grafana reads it."""
    return {
        "uid": "electra-serve",
        "title": "electra-serve",
        "tags": ["electra-serve"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,  # one crosshair on all panels
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": [_alerts_on_the_time_line()]},
        "panels": list(_panels()),
    }


def queries() -> Iterator[str]:
    """Every expression of every panel."""
    return (query.expr for panels in ROWS.values() for panel in panels for query in panel.queries)


def _panels() -> Iterator[Json]:
    top, number = 0, 1
    for title, panels in ROWS.items():
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": _at(0, top, WIDTH, 1),
        }
        height = HEIGHT // 2 if panels[0].kind == "stat" else HEIGHT
        lefts = [WIDTH * place // len(panels) for place in range(len(panels) + 1)]
        for place, panel in enumerate(panels):
            where = _at(lefts[place], top + 1, lefts[place + 1] - lefts[place], height)
            yield _panel(panel, number + place + 1, where)
        top, number = top + 1 + height, number + 1 + len(panels)


def _at(x: int, y: int, w: int, h: int) -> Json:
    return {"x": x, "y": y, "w": w, "h": h}


def _panel(panel: Panel, number: int, where: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": where,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "format": "heatmap" if query.heatmap else "time_series",
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _look(panel), "overrides": []},
        "options": _options(panel.kind),
    }


def _look(panel: Panel) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if panel.bound is not None:
        steps.append({"color": "red", "value": panel.bound})
    look: dict[str, object] = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        look["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "off" if panel.bound is None else "dashed"},
        }
    return look


def _options(kind: str) -> Json:
    if kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    if kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": "short"}, "color": {"mode": "scheme", "scheme": "Blues"}}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def _variables() -> list[Json]:
    chosen = {"multi": True, "includeAll": True, "current": {"text": "All", "value": "$__all"}}
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
        {
            "name": "job",
            "type": "query",
            "label": "Job",
            "datasource": DATASOURCE,
            "query": "label_values(electra_build_info, job)",
            "refresh": 2,
            **chosen,
        },
        {
            "name": "model",
            "type": "query",
            "label": "Model",
            "datasource": DATASOURCE,
            "query": f"label_values(electra_model_ready{{{JOB}}}, model)",
            "refresh": 2,
            **chosen,
        },
    ]


def _alerts_on_the_time_line() -> Json:
    return {
        "name": "Alerts",
        "enable": True,
        "iconColor": "red",
        "datasource": DATASOURCE,
        "expr": 'ALERTS{alertname=~"Electra.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}} {{model}}",
    }


def main(arguments: Sequence[str]) -> int:
    """Writes the file, or says whether it is up to date."""
    text = json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"
    if "--check" not in arguments:
        DASHBOARD_FILE.write_text(text, encoding="utf-8")
        return 0
    if DASHBOARD_FILE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write("the dashboard is not up to date: make dashboard\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
