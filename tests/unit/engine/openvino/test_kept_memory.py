"""OpenVINO's memory per batch shape is bounded, and freed with the model."""

from __future__ import annotations

import json
import subprocess
import sys
from ctypes import CDLL
from typing import Final

import pytest

MEASURES: Final = """
import ctypes, gc, json, sys
from electra_serve.engine.factory import load_model
from electra_serve.engine.profiling import full_batch
from electra_serve.settings.schema import BatchingSettings, ModelSettings
from electra_serve.tensors import ENCODER_OUTPUTS, Output

class Counts(ctypes.Structure):  # mallinfo2(3)
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts
measured = []

def measure():
    gc.collect()
    measured.append(libc.mallinfo2().uordblks)

measure()
for _ in range(2):
    loaded = load_model(ModelSettings(preset="electra_demo"), BatchingSettings())
    for _ in range(2):
        for engine in loaded.all_engines:
            for shape in engine.signature.shapes:
                for output in (output for output in Output if output in ENCODER_OUTPUTS):
                    engine.run(full_batch(shape), frozenset({output}))
        measure()
    for engine in loaded.all_engines:
        engine.close()
    del loaded, engine
    measure()
print(json.dumps(measured))
"""
KEPT_BYTES: Final = 5_000_000
"""Limit of memory left by a model; a second run of the shapes may add a quarter of it."""


@pytest.mark.skipif(not hasattr(CDLL(None), "mallinfo2"), reason="needs glibc")
def test_what_is_kept_of_shapes_does_not_grow_and_goes_with_the_model() -> None:
    ran = subprocess.run([sys.executable, "-c", MEASURES], capture_output=True, text=True, check=True)
    before, used, used_again, gone, _, _, gone_again = json.loads(ran.stdout)
    assert used - before > KEPT_BYTES
    assert used_again - used < KEPT_BYTES / 4
    assert gone - before < 2 * KEPT_BYTES
    assert gone_again - gone < KEPT_BYTES / 4
