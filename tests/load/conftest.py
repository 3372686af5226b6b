"""Figures of the load tests: collected from each test and printed together at the end of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest

_FIGURE: Final = "figure"


@dataclass(frozen=True, slots=True)
class Report:
    """Collects the figures of one test.

    Attributes:
        item: The test.
        long_form: This run includes the long forms, so the machine is quiet and times are asserted.
    """

    item: pytest.Item
    long_form: bool

    def __call__(self, figure: str) -> None:
        """Adds a figure."""
        self.item.user_properties.append((_FIGURE, f"{self.item.name}: {figure}"))

    def promise(self, kept: bool, promise: str) -> None:
        """Asserts a promise about times or rates in the long form; a busy machine could not keep it."""
        assert kept or not self.long_form, promise


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """The test's figures."""
    return Report(request.node, long_form="not long" not in request.config.option.markexpr)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the figures as a list that docs/reliability.md can take."""
    reports = [test for tests in terminalreporter.stats.values() for test in tests]
    figures = [
        figure
        for test in reports
        if getattr(test, "when", "") == "call"
        for name, figure in test.user_properties
        if name == _FIGURE
    ]
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.write_line(f"- {figure}")
