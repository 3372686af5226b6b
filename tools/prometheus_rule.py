"""Writes the rules of deploy/prometheus/rules as the PrometheusRule that the Prometheus operator takes.

    python -m tools.prometheus_rule [--check]

Both hold the same groups. Kustomize reads no file outside its folder, and makes no field of one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).parents[1]
RULES: Final = ROOT / "deploy/prometheus/rules"
MANIFEST: Final = ROOT / "deploy/kubernetes/components/monitoring/rules.yaml"
HEAD: Final = "# Generated from deploy/prometheus/rules by `make prometheus-rule`.\n"
META: Final = {"name": "electra-serve", "labels": {"app.kubernetes.io/name": "electra-serve"}}


def manifest(files: Sequence[Path]) -> str:
    """The PrometheusRule with the groups of `files`, in their order."""
    groups = [group for file in files for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": META,
        "spec": {"groups": groups},
    }
    return HEAD + yaml.safe_dump(rule, sort_keys=False, width=120, allow_unicode=True)


def main() -> int:
    """Writes the manifest, or with `--check` says whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if it is out of date")
    current = manifest(sorted(RULES.glob("*.yml")))
    if parser.parse_args().check:
        if MANIFEST.read_text("utf-8") == current:
            return 0
        sys.stderr.write(f"{MANIFEST.relative_to(ROOT)} is out of date: make prometheus-rule\n")
        return 1
    MANIFEST.write_text(current, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
