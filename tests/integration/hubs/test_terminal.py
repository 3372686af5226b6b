"""Start on a terminal: progress of fetching, verifying and warm-up, and the address of the page at the end."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from electra_serve.runtime.progress import ERASE
from tests.integration.hubs.conftest import HF_REPO, environment_of
from tests.integration.hubs.huggingface import FakeHuggingFace
from tests.integration.process import Standard, start
from tests.waiting import wait_until


class Screen:
    """Everything that was written to a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.written = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # both ends of the terminal are closed
            while data := os.read(self._descriptor, 4096):
                self.written += data.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """Lines that are left on the screen, after those that were erased."""
        return [line.rpartition(ERASE)[2] for line in self.written.replace("\r\n", "\n").split("\n")]


@contextlib.contextmanager
def terminal() -> Iterator[tuple[Standard, Screen]]:
    """Opens a pseudo-terminal: the end for a process, and its screen."""
    ours, theirs = os.openpty()
    try:
        yield Standard(theirs, theirs), Screen(ours)
    finally:
        os.close(theirs)
        os.close(ours)


@pytest.fixture
def environment(tmp_path: Path, hf: FakeHuggingFace) -> dict[str, str]:
    variables = environment_of(tmp_path, hf)
    return variables | {"ELECTRA_HUB__CACHE_DIR": str(tmp_path / "cache"), "TERM": "xterm"}


def test_a_start_shows_its_stages_and_the_page(
    hf: FakeHuggingFace, environment: dict[str, str], tmp_path: Path
) -> None:
    hf.spoil("model.weights.h5", lambda response: replace(response, pause=lambda: time.sleep(1.0)))
    preset = f"hf://{HF_REPO}"
    with (
        terminal() as (standard, screen),
        start(tmp_path, f"--models={preset}", environment=environment, standard=standard) as process,
    ):
        process.wait_ready()
        wait_until(lambda: "Try: curl" in screen.written)
        assert httpx.get(f"{process.url}/").status_code == 200
        process.terminate()
        assert process.wait() == 0
        written, lines = screen.written, screen.lines
    stages = [written.find(stage) for stage in (f"fetching {preset} ", "verifying ", "warming up tiny_en [")]
    assert -1 < stages[0] < stages[1] < stages[2]
    assert " shapes" in written[stages[2] :]
    assert f"Playground: {process.url}/  API reference: {process.url}/docs" in lines
    assert any("ready" in line and f"{process.url}/" in line for line in lines)  # the log
    assert not [line for line in lines if line.startswith(("fetching ", "verifying ", "warming up "))]


def test_a_failed_start_ends_with_its_reason_on_a_line(environment: dict[str, str], tmp_path: Path) -> None:
    with (
        terminal() as (standard, screen),
        start(tmp_path, f"--models=hf://{HF_REPO}@{'0' * 40}", environment=environment, standard=standard) as process,
    ):
        assert process.wait() == 1
        wait_until(lambda: "electra-serve: " in screen.written)
        assert [line for line in screen.lines if line][-1].startswith("electra-serve: ")


def test_without_a_terminal_there_are_only_lines(environment: dict[str, str], tmp_path: Path) -> None:
    with start(tmp_path, f"--models=hf://{HF_REPO}", environment=environment) as process:
        process.wait_ready()
        wait_until(lambda: "Playground: " in process.stdout)
        assert "\x1b" not in process.stderr + process.stdout
        assert process.complaints == []
        (ready,) = (event for event in process.events if event["event"] == "ready")
        assert ready["playground"] == f"{process.url}/"


def test_json_on_a_terminal_is_not_mixed_with_bars(environment: dict[str, str], tmp_path: Path) -> None:
    with (
        terminal() as (standard, screen),
        start(tmp_path, "--log.format=json", environment=environment, standard=standard) as process,
    ):
        process.wait_ready()
        wait_until(lambda: "Try: curl" in screen.written)
        assert "\x1b" not in screen.written
