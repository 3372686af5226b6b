"""Prints what the comparison with transformers finds, as a table: `make conformance-report`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

from tests.conformance.head_checks import head_checks
from tests.conformance.transformers_checks import Check, Finding, checks

PACKAGES = ("transformers", "tokenizers", "torch", "keras")


def main() -> int:
    """Runs every check, each in a folder of its own.

    Returns:
        1 if one of them found too large a difference, else 0.
    """
    sys.stdout.write(", ".join(f"{package} {version(package)}" for package in PACKAGES) + "\n\n")
    return print_report([*checks(), *head_checks()], sys.stdout.write)


def print_report(listed: Iterable[Check], write: Callable[[str], object]) -> int:
    """Writes one line a check, as it is done."""
    write("| source | format | verified | compared | worst | bound | |\n|---|---|---|---|---|---|---|\n")
    failed = 0
    for check in listed:
        finding = _run(check)
        agrees = finding.worst <= finding.bound
        failed |= not agrees
        numbers = f"{finding.compared} | {finding.worst:.1e} | {finding.bound:.0e} | {'ok' if agrees else 'DIFFERS'}"
        write(f"| {check.source} | {check.format} | {check.verified} | {numbers} |\n")
    return failed


def _run(check: Check) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        return check.run(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
