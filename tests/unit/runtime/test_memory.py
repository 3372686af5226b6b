from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Final

import pytest

from electra_serve.runtime import memory
from tests.load.growth import Sample

PIECE_BYTES: Final = 100_000
"""Of the heap: above 128 KiB glibc maps memory, and unmaps it by itself."""
PIECES: Final = 1_000


class Node:
    """Something that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def resident_bytes() -> float:
    return Sample.of(os.getpid(), compilations=0).resident_bytes


class FakeMemory:
    """Memory of a process: what is in use, and what is unused and not given back."""

    def __init__(self) -> None:
        self.used = 200 * 2**20
        self.unused = 0
        self.trims = 0

    def trimmer(self) -> memory.MemoryTrimmer:
        trimmer = memory.MemoryTrimmer(
            resident=lambda: self.used + self.unused, trim=self.trim, collect_and_trim=self.trim
        )
        trimmer.settle()
        return trimmer

    def trim(self) -> None:
        self.trims += 1
        self.unused = 0


def test_what_is_kept_is_freed_only_when_memory_is_reclaimed() -> None:
    node = Node()
    memory.freeze_startup_objects()
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is not None
    memory.collect_and_trim()
    assert gone() is None


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_what_is_freed_goes_back_to_the_machine() -> None:
    pieces = [b"\1" * PIECE_BYTES for _ in range(PIECES)]
    above = b"\1" * PIECE_BYTES  # without which glibc would give back the top of the heap by itself
    del pieces
    before = resident_bytes()
    memory.collect_and_trim()
    assert before - resident_bytes() > PIECES * PIECE_BYTES / 2
    assert len(above) == PIECE_BYTES


def test_resident_bytes_are_those_of_the_process() -> None:
    assert abs(memory.resident_bytes() - resident_bytes()) < 20e6


async def test_growth_is_given_back_from_a_slack_on() -> None:
    held = FakeMemory()
    trimmer = held.trimmer()
    held.unused = memory.TRIM_SLACK_BYTES
    await trimmer.trim_if_grown()
    assert held.trims == 0
    held.unused += 1
    await trimmer.trim_if_grown()
    assert (held.trims, held.unused) == (1, 0)
    await trimmer.trim_if_grown()
    assert held.trims == 1, "nothing has grown since"


async def test_what_was_in_use_at_one_trim_is_given_back_by_a_later_one() -> None:
    held = FakeMemory()
    trimmer = held.trimmer()
    held.used *= 4
    await trimmer.trim_if_grown()
    held.used, held.unused = held.used // 4, held.used * 3 // 4
    await trimmer.trim_if_grown()
    assert (held.trims, held.unused) == (2, 0)


async def test_a_model_that_is_larger_is_no_growth() -> None:
    held = FakeMemory()
    trimmer = held.trimmer()
    held.used *= 2
    trimmer.collect_and_trim()
    assert held.trims == 1
    await trimmer.trim_if_grown()
    assert held.trims == 1


async def test_a_trim_frees_memory_while_the_event_loop_runs() -> None:
    threads: list[int] = []
    trimmer = memory.MemoryTrimmer(resident=lambda: 2**40, trim=lambda: threads.append(threading.get_ident()))
    await trimmer.trim_if_grown()
    assert threads
    assert threads != [threading.get_ident()]


ARENAS: Final = """
import ctypes, os, threading
from electra_serve.runtime.memory import use_one_arena
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
use_one_arena(os.environ)
threads = [threading.Thread(target=lambda: [libc.malloc(50_000) for _ in range(9)]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


@pytest.mark.parametrize(("environment", "shared"), [({}, True), ({"MALLOC_ARENA_MAX": "3"}, False)])
def test_threads_share_one_arena_unless_the_environment_sets_their_number(
    environment: dict[str, str], shared: bool
) -> None:
    ours = {"MALLOC_ARENA_MAX", "GLIBC_TUNABLES"}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    ran = subprocess.run(
        [sys.executable, "-c", ARENAS], env=inherited | environment, capture_output=True, text=True, check=True
    )
    count = ran.stderr.count("\nArena ") + ran.stderr.startswith("Arena ")
    assert (count == 1) is shared, ran.stderr
