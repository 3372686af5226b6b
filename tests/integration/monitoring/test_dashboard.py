"""The dashboard's file is what Grafana's own model of a dashboard reads: nothing in it is unknown to it, or lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tools.dashboard.__main__ import DASHBOARD_FILE

ITS_SOURCE_S: Final = {"titleFormat", "textFormat"}
"""Of an annotation, but its data source's to know."""


def test_grafana_s_model_of_a_dashboard_takes_all_of_it() -> None:
    register_default_plugins()
    written = json.loads(DASHBOARD_FILE.read_text())
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
    assert [path for path in lost(written, read) if path.rpartition("/")[2] not in ITS_SOURCE_S] == []


def test_what_it_does_not_know_is_seen() -> None:
    register_default_plugins()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json({"title": "t", "panles": []})))
    assert list(lost({"title": "t", "panles": []}, read)) == ["/panles"]


def lost(written: object, read: object, path: str = "") -> Iterator[str]:
    """Returns the paths of `written` that `read` lacks or changes; null counts as absent."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key in read:
                yield from lost(value, read[key], f"{path}/{key}")
            elif value is not None:
                yield f"{path}/{key}"
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for index, (one, other) in enumerate(zip(written, read, strict=True)):
            yield from lost(one, other, f"{path}/{index}")
    elif written != read:
        yield path
