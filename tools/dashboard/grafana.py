"""The dashboard in Grafana's JSON. Rows are 24 wide; the panels of a row have about the same width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from tools.dashboard.panel import Panel
from tools.dashboard.rows import JOB, ROWS

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24
HEIGHT: Final = 8

Json: TypeAlias = Mapping[str, object]


def dashboard() -> Json:
    """Returns the dashboard's JSON."""
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
