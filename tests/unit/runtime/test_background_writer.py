"""A writer whose stream stalls or fails: it never blocks, keeps the order and counts what it drops."""

from __future__ import annotations

import fcntl
import gc
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from electra_serve.runtime.background_writer import BackgroundWriter

SOON_S = 30.0
PIPE_BYTES = 4096


class GatedStream(io.StringIO):
    """Takes text while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.gate.wait(SOON_S)
        return super().write(text)


@contextmanager
def pipe() -> Iterator[tuple[int, TextIO]]:
    """Opens a pipe of one page: the end to read, and a stream to write."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    with os.fdopen(write_end, "w") as stream:
        yield read_end, stream
    os.close(read_end)


def test_text_arrives_whole_and_in_order() -> None:
    stream = io.StringIO()
    writer = BackgroundWriter(stream)
    pieces = [f"{number}\n" for number in range(3000)]
    for piece in pieces:
        assert writer.write(piece) == len(piece)
    assert writer.wait_written(SOON_S)
    assert (stream.getvalue(), writer.dropped) == ("".join(pieces), 0)


def test_what_is_over_the_limit_is_dropped_counted_and_reported_once() -> None:
    stream, reports = GatedStream(), list[int]()
    writer = BackgroundWriter(stream, max_pieces=8)
    writer.notify(reports.append)
    writer.write("first\n")
    assert stream.entered.wait(SOON_S)  # the thread is blocked in it from here on
    for number in range(11):
        writer.write(f"{number}\n")
    assert writer.dropped == 3
    assert not writer.wait_written(0.01)
    stream.gate.set()
    assert writer.wait_written(SOON_S)
    writer.write("last\n")
    assert writer.wait_written(SOON_S)
    assert stream.getvalue() == "first\n" + "".join(f"{number}\n" for number in range(8)) + "last\n"
    assert (writer.dropped, reports) == (3, [3])


def test_the_limit_is_taken_to_the_last_piece() -> None:
    stream = GatedStream()
    writer = BackgroundWriter(stream, max_pieces=8)
    writer.write("first\n")
    assert stream.entered.wait(SOON_S)
    for _ in range(8):
        writer.write("\n")
    assert writer.dropped == 0
    writer.write("\n")
    assert writer.dropped == 1
    stream.gate.set()


def test_a_descriptor_that_is_full_blocks_only_the_thread() -> None:
    with pipe() as (read_end, stream):
        writer = BackgroundWriter(stream)
        sent = "x" * 3 * PIPE_BYTES
        writer.write(sent)
        assert not writer.wait_written(0.05)
        stream.flush()  # the lock of the stream itself is free
        received = b""
        while len(received) < len(sent):
            received += os.read(read_end, PIPE_BYTES)
        assert writer.wait_written(SOON_S)
        assert received.decode() == sent


def test_a_non_blocking_descriptor_is_waited_for() -> None:
    with pipe() as (read_end, stream):
        os.set_blocking(stream.fileno(), False)
        writer = BackgroundWriter(stream)
        sent = "x" * 3 * PIPE_BYTES
        writer.write(sent)
        assert not writer.wait_written(0.05)
        received = b""
        while len(received) < len(sent):
            received += os.read(read_end, PIPE_BYTES)
        assert writer.wait_written(SOON_S)
        assert (received.decode(), writer.dropped) == (sent, 0)


def test_what_cannot_be_written_is_counted() -> None:
    closed = io.StringIO()
    closed.close()
    with Path("/dev/full").open("w") as full:
        for stream in (closed, full):
            writer = BackgroundWriter(stream)
            writer.write("one\n")
            writer.write("two\n")
            assert writer.wait_written(SOON_S)
            assert writer.dropped == 2


def test_characters_that_the_stream_lacks_are_escaped(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as stream:
        writer = BackgroundWriter(stream)
        writer.write("é\n")
        assert writer.wait_written(SOON_S)
    assert (tmp_path / "log").read_text() == "\\xe9\n"


def test_a_finalizer_may_write_while_a_piece_is_put() -> None:
    """As asyncio does when a task's exception was never retrieved."""

    class Chatty:
        def __init__(self, writer: BackgroundWriter) -> None:
            self.itself, self.writer = self, writer

        def __del__(self) -> None:
            self.writer.write("finalized\n")

    stream = io.StringIO()
    writer = BackgroundWriter(stream, max_pieces=100_000)
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(2000):
            Chatty(writer)
            writer.write(f"{number}\n")
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert writer.wait_written(SOON_S)
    assert stream.getvalue().count("finalized") == 2000


@pytest.mark.parametrize("name", ["isatty", "fileno"])
def test_it_stands_in_for_its_stream(name: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        writer = BackgroundWriter(stream)
        assert getattr(writer, name)() == getattr(stream, name)()
        assert writer.writable()


def test_a_thread_that_is_blocked_does_not_keep_the_interpreter_from_ending() -> None:
    with pipe() as (_, stream):
        code = "; ".join(
            (
                "import sys",
                "from electra_serve.runtime.background_writer import BackgroundWriter",
                "writer = BackgroundWriter(sys.stderr)",
                f"writer.write('x' * {3 * PIPE_BYTES})",
                "assert not writer.wait_written(0.2)",
            )
        )
        ended = subprocess.run([sys.executable, "-c", code], stderr=stream, timeout=SOON_S, check=False)
        assert ended.returncode == 0
