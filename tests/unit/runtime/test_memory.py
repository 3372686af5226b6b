from __future__ import annotations

import ctypes
import gc
import os
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
