"""The bar and the log lines: rows, tokens per second and time left."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import termios

import pytest
import structlog
from structlog.testing import capture_logs

from electra_serve.bulk.progress import Done, ProgressBar, ProgressLog, Speed
from tests.fakes import FakeClock


def test_time_left_counts_only_the_rows_of_this_run() -> None:
    clock = FakeClock()
    speed = Speed(clock.now)
    clock.advance(10)
    assert speed.left_s(Done(rows=300, tokens=500, rejected=0, total_rows=500, rows_before=200)) == 20
    assert speed.tokens_per_s(Done(300, 500, 0, 500, 200)) == 50
    assert speed.left_s(Done(300, 500, 0, None)) is None
    assert speed.left_s(Done(200, 0, 0, 500, 200)) is None


def test_log_lines_come_at_intervals() -> None:
    clock = FakeClock()
    with capture_logs() as logs:
        progress = ProgressLog(structlog.get_logger(), clock.now)
        for second in range(1, 26):
            clock.advance(1)
            progress.update(Done(second, 100 * second, 1, 50))
        progress.close()
    shown = [(entry["rows"], entry["tokens_per_s"], entry["left_s"], entry["rejected"]) for entry in logs]
    assert shown == [(10, 100, 40, 1), (20, 100, 30, 1)]


def test_the_bar_is_shown_on_a_terminal_without_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (0, 0))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)  # tqdm asks for the size of this one only
        bar = ProgressBar(terminal)
        bar.update(Done(100, 2000, 3, 200))
        bar.close()
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is closed
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert b"100/200" in shown


def test_the_bar_shows_rows_rate_and_rejected_rows() -> None:
    stream = io.StringIO()
    bar = ProgressBar(stream, rows_before=20)
    bar.update(Done(50, 1000, 0, None, 20))
    bar.update(Done(100, 2000, 3, 200, 20))
    bar.close()
    last = stream.getvalue().split("\r")[-1]
    assert "100/200" in last
    assert "tokens/s, 3 rejected" in last
