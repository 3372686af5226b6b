"""What OpenVINO keeps of batch shapes is bounded, and goes with its model: seen in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from ctypes import CDLL
from typing import Final

import pytest

MEASURES: Final = """
import ctypes, gc, json, sys
import numpy as np
from electra_serve.engine.factory import load_model
from electra_serve.engine.openvino import compile
from electra_serve.settings.schema import BatchingSettings, ModelSettings
from electra_serve.tensors import Batch, Output

class Counts(ctypes.Structure):  # mallinfo2(3)
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts
told = []

def tell():
    gc.collect()
    told.append(libc.mallinfo2().uordblks)

compile.SHAPE_CACHE_ENTRIES = int(sys.argv[1])
tell()
for _ in range(2):
    engine = load_model(ModelSettings(preset="electra_demo"), BatchingSettings()).engines[0]
    for length in range(1, 201):
        ids = np.zeros((1, length), np.int32)
        engine.run(Batch(ids, ids, np.ones_like(ids)), frozenset({Output.MEAN}))
        if length in (50, 200):
            tell()
    engine.close()
    del engine
    tell()
print(json.dumps(told))
"""
KEPT_BYTES: Final = 5_000_000
"""Of 150 shapes, all of them, at the least; and what no model may leave behind."""

pytestmark = pytest.mark.skipif(not hasattr(CDLL(None), "mallinfo2"), reason="needs glibc")


def used_bytes(shape_cache_entries: int) -> list[int]:
    """Before; after 50 shapes, after 150 more, and when the model has gone; then the same of a second one."""
    command = [sys.executable, "-c", MEASURES, str(shape_cache_entries)]
    told: list[int] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return told


def test_what_is_kept_of_shapes_goes_with_the_model() -> None:
    before, few, many, gone, _, _, gone_again = used_bytes(2000)
    assert many - few > KEPT_BYTES
    assert gone - before < KEPT_BYTES
    assert gone_again - gone < KEPT_BYTES / 4


def test_what_is_kept_of_shapes_is_bounded() -> None:
    _, few, many, *_ = used_bytes(20)
    assert many - few < KEPT_BYTES / 4
