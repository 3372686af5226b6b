"""A bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import io
import logging

import pytest

from electra_serve.presets.hubs.progress import EVERY_S, ProgressBar, ProgressLog
from tests.fakes import FakeClock


def test_a_bar_is_drawn_over_itself_and_ends_its_line() -> None:
    stream = io.StringIO()
    progress = ProgressBar(stream)
    progress.end()
    progress.update("hf://a/b", 0, 10**6)
    progress.update("hf://a/b", 10**6, 10**6)
    progress.end()
    first, second = stream.getvalue().split("\r\x1b[K")[1:]
    assert first == f"hf://a/b [{' ' * 30}] 0.0 of 1.0 MB"
    assert second == f"hf://a/b [{'#' * 30}] 1.0 of 1.0 MB\n"


def test_more_than_the_total_fills_the_bar() -> None:
    stream = io.StringIO()
    ProgressBar(stream).update("a", 3, 2)
    assert f"[{'#' * 30}]" in stream.getvalue()


def test_a_log_gets_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    progress = ProgressLog(logging.getLogger("test"), clock.now)
    with caplog.at_level(logging.INFO):
        progress.update("a", 10**6, None)
        clock.advance(EVERY_S - 0.1)
        progress.update("a", 2 * 10**6, None)
        clock.advance(0.1)
        progress.update("a", 3 * 10**6, 4 * 10**6)
    assert caplog.messages == ["fetching a: 1.0 MB", "fetching a: 3.0 of 4.0 MB"]
