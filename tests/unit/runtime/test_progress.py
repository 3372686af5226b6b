"""Bars on a terminal, also below the lines of a log."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from electra_serve.engine.profiling import calibrate
from electra_serve.errors import PresetError
from electra_serve.presets.digest import sha256_of_files
from electra_serve.presets.hubs.manifest import FileRecord, Manifest, record_files, verify, write_manifest
from electra_serve.runtime.progress import DRAW_EVERY_S, ERASE, ProgressBar, TerminalWriter, Unit
from tests.fakes import FakeClock, FakeEngine

SOON_S = 30.0


class Recorded:
    """Records what it receives."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, str, int, int | None, str]] = []
        self.ends = 0

    def update(self, stage: str, name: str, done: int, total: int | None, unit: Unit = "bytes") -> None:
        self.updates.append((stage, name, done, total, unit))

    def end(self) -> None:
        self.ends += 1


class Terminal:
    """A terminal of one line height: the text that scrolled away, and the last line."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stream = io.StringIO()
        self.writer = TerminalWriter(self.stream, now=self.clock.now)

    def shown(self) -> tuple[list[str], str]:
        """Returns the finished lines and the last one, as a terminal shows them."""
        assert self.writer.wait_written(SOON_S)
        *lines, last = (line.rpartition(ERASE)[2] for line in self.stream.getvalue().split("\n"))
        return lines, last


def test_a_bar_is_drawn_over_itself_and_ends_its_line() -> None:
    stream = io.StringIO()
    progress = ProgressBar(stream)
    progress.end()
    progress.update("fetching", "hf://a/b", 0, 10**6)
    progress.update("fetching", "hf://a/b", 10**6, 10**6)
    progress.end()
    first, second = stream.getvalue().split(ERASE)[1:]
    assert first == f"fetching hf://a/b [{' ' * 30}] 0.0 of 1.0 MB"
    assert second == f"fetching hf://a/b [{'#' * 30}] 1.0 of 1.0 MB\n"


def test_more_than_the_total_fills_the_bar() -> None:
    stream = io.StringIO()
    ProgressBar(stream).update("fetching", "a", 3, 2)
    assert f"[{'#' * 30}]" in stream.getvalue()


def test_lines_of_the_log_appear_above_the_bar() -> None:
    terminal = Terminal()
    terminal.writer.write("one\n")
    terminal.writer.update("warming up", "a", 12, 24, "shapes")
    bar = f"warming up a [{'#' * 15}{' ' * 15}] 12 of 24 shapes"
    assert terminal.shown() == (["one"], bar)
    terminal.writer.write("two\n")
    assert terminal.shown() == (["one", "two"], bar)
    terminal.writer.end()
    terminal.writer.write("three\n")
    assert terminal.shown() == (["one", "two", "three"], "")


def test_a_text_that_ends_within_its_line_is_not_erased() -> None:
    terminal = Terminal()
    terminal.writer.update("verifying", "a", 0, None)
    terminal.writer.write("half")
    terminal.clock.advance(DRAW_EVERY_S)
    terminal.writer.update("verifying", "a", 1, None)
    assert terminal.shown() == ([], "half")
    terminal.writer.write(" a line\n")
    assert terminal.shown() == (["half a line"], "verifying a 0.0 MB")


def test_a_bar_is_drawn_a_few_times_a_second() -> None:
    terminal = Terminal()
    for done in range(1000):
        terminal.writer.update("verifying", "a", done * 10**6, None)
    assert terminal.shown()[1] == "verifying a 0.0 MB"
    terminal.clock.advance(DRAW_EVERY_S)
    terminal.writer.update("verifying", "a", 10**9, None)
    assert terminal.shown()[1] == "verifying a 1000.0 MB"


@pytest.mark.parametrize(("name", "shown"), [("a\x1b[2J\nb", "verifying a?[2J?b "), ("x" * 200, "x" * 60)])
def test_a_name_cannot_change_the_terminal(name: str, shown: str) -> None:
    terminal = Terminal()
    terminal.writer.update("verifying", name, 0, None)
    lines, last = terminal.shown()
    assert lines == []
    assert shown in last
    assert len(last) < 80


def test_a_check_reports_its_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name * 10)
    progress = Recorded()
    digest = sha256_of_files(tmp_path, [tmp_path / "a", tmp_path / "b"], progress)
    assert digest == sha256_of_files(tmp_path, [tmp_path / "b", tmp_path / "a"])
    assert [update[2:] for update in progress.updates] == [(0, 20, "bytes"), (10, 20, "bytes")]
    write_manifest(tmp_path, Manifest("hf://a/b@c", "2026", "test", record_files(tmp_path, ["a", "b"])))
    progress = Recorded()
    verify(tmp_path, progress)
    assert progress.updates == [("verifying", "hf://a/b@c", done, 20, "bytes") for done in (0, 10)]
    assert progress.ends == 1


def test_a_damaged_file_is_found_while_progress_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    write_manifest(tmp_path, Manifest("hf://a/b@c", "2026", "test", {"a": FileRecord(1, "0" * 64)}))
    with pytest.raises(PresetError, match="another SHA-256"):
        verify(tmp_path, Recorded())


def test_a_warm_up_reports_its_shapes() -> None:
    progress = Recorded()
    engine = FakeEngine()
    calibrate([engine], 1e9, progress=progress, name="a")
    total = len(engine.signature.shapes)
    assert progress.updates[-1] == ("warming up", "a", total - 1, total, "shapes")
    assert {update[2] for update in progress.updates} == set(range(total))
    assert progress.ends == 1
