"""Each test of load tells its figure, and all figures are told together at the end of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

Report = Callable[[str], None]
"""Tells one figure."""

_FIGURES: Final = pytest.StashKey[list[str]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Tells a figure, under the test's name."""

    def tell(figure: str) -> None:
        request.config.stash.setdefault(_FIGURES, []).append(f"{request.node.name}: {figure}")

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Writes the figures as a list that docs/reliability.md can take."""
    figures = config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.write_line(f"- {figure}")
