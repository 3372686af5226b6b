"""Writes the dashboard's file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.dashboard.grafana import dashboard

DASHBOARD_FILE: Final = Path(__file__).parents[2] / "deploy/grafana/dashboards/electra-serve.json"


def main(arguments: Sequence[str]) -> int:
    """Writes the file; with `--check` only compares it."""
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
