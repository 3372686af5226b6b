"""A line now and then in a log."""

from __future__ import annotations

import logging

import pytest

from electra_serve.presets.hubs.progress import EVERY_S, ProgressLog
from tests.fakes import FakeClock


def test_a_log_gets_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    progress = ProgressLog(logging.getLogger("test"), clock.now)
    with caplog.at_level(logging.INFO):
        progress.update("fetching", "a", 10**6, None)
        clock.advance(EVERY_S - 0.1)
        progress.update("fetching", "a", 2 * 10**6, None)
        clock.advance(0.1)
        progress.update("fetching", "a", 3 * 10**6, 4 * 10**6)
    assert caplog.messages == ["fetching a: 1.0 MB", "fetching a: 3.0 of 4.0 MB"]
