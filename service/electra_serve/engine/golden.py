"""Does a fetched model still compute what it computed when it was first loaded here?

Digests hold the files. This holds everything after them: the reading, the libraries, the device. The mean output of
one fixed input is kept beside the manifest of what was fetched or compiled, and compared at each later load. It is kept
as numbers rather than as a digest of rounded ones, since some number always lies at the edge of a rounding. What is
compared is the relative distance of two vectors, ‖a - b‖ / ‖b‖, with a tolerance per dtype that another CPU, GPU or
version of a library stays well within; a wrong activation, weight or layer order is far outside.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from electra_serve.engine.base import Engine
from electra_serve.errors import PresetError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.files import read_json
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.hubs.manifest import GOLDEN_FILE, MANIFEST_FILE
from electra_serve.tensors import Batch, Encoding, Float32Array, Output

LENGTH: Final = 16
TOLERANCE: Final[Mapping[str, float]] = {"float32": 0.01, "float16": 0.02, "bfloat16": 0.05, "int8": 0.1}
"""Largest relative distance, by what is computed in. float32 leaves room for the TF32 of GPUs, which has 10 bits; a
bfloat16 has 7, and measures 0.01. int8 is computed in another way on
CPUs with bfloat16 arithmetic: 0.04 apart on this input, with real weights."""
WIDEST: Final = max(TOLERANCE.values())
"""For a dtype that is not listed."""
DECIMALS: Final = 5


def check_golden(engine: Engine, preset: PresetFolder) -> None:
    """Compares with what `preset` computed before, or notes it the first time. Only for presets with a manifest.

    Args:
        engine: Warm.
        preset: What it computes.

    Raises:
        PresetError: It computes something else.
    """
    if preset.path is None or not (preset.artifact or (preset.path / MANIFEST_FILE).is_file()):
        return
    if preset.weights == "random" and not preset.artifact:
        return  # drawn weights are not in its files
    path = preset.path / GOLDEN_FILE
    if path.is_file():
        _compare(_compute(engine, preset.config.vocab_size), engine.signature.dtype, path, _remedy(preset))
    else:
        note_golden(engine, preset.config, preset.path)


def note_golden(engine: Engine, config: BackboneConfig, folder: Path) -> None:
    """Writes what `engine`, warm, computes into `folder`, unless that is read-only."""
    _write(_compute(engine, config.vocab_size), engine.signature.dtype, folder / GOLDEN_FILE)


def golden_sequence(vocab_size: int, max_length: int) -> Encoding:
    """Ids spread over the vocabulary."""
    length = min(LENGTH, max_length)
    ids = (np.arange(1, length + 1) * 7919 % vocab_size).astype(np.int32)
    return Encoding(ids, np.zeros_like(ids), np.ones_like(ids), compute_length=length, real_tokens=length)


def distance(computed: Float32Array, kept: Float32Array) -> float:
    """‖a - b‖ / ‖b‖ of two (H,) vectors; infinite where they cannot be compared.

    Example:
        >>> distance(np.array([1.0, 1.0]), np.array([1.0, 1.0]))
        0.0
    """
    scale = float(np.linalg.norm(kept))
    if computed.shape != kept.shape or not scale:
        return float("inf")
    return float(np.linalg.norm(computed - kept)) / scale


def _compute(engine: Engine, vocab_size: int) -> Float32Array:
    signature = engine.signature
    sequence = golden_sequence(vocab_size, signature.max_length)
    batch = Batch.one_per_row([sequence], signature.single_row(len(sequence)))
    outputs = frozenset({Output.MEAN})
    return engine.run(batch, outputs).extract(batch.placements[0], sequence, outputs).get(Output.MEAN)


def _compare(computed: Float32Array, dtype: str, path: Path, remedy: str) -> None:
    content = read_json(path)
    try:
        kept, kept_dtype = np.asarray(content["mean_output"], np.float32), str(content["dtype"])
    except (KeyError, ValueError, TypeError) as error:
        raise PresetError(f"{path}: must hold what the model computed; got something else: {remedy}") from error
    most = max(TOLERANCE.get(name, WIDEST) for name in (dtype, kept_dtype))
    found = distance(computed, kept)
    if not found <= most:
        raise PresetError(
            f"{path.parent}: must compute what it did when first loaded here, to a relative distance of {most:g}; "
            f"it is {found:.2g} away: see what changed since, and {remedy} if that is meant"
        )


def _remedy(preset: PresetFolder) -> str:
    """The way to get a new golden vector: an artifact's manifest has the digest of its own."""
    return f"compile {preset.artifact.preset:.80} again" if preset.artifact else f"delete {GOLDEN_FILE}"


def _write(computed: Float32Array, dtype: str, path: Path) -> None:
    content = {"dtype": dtype, "mean_output": np.round(computed.astype(float), DECIMALS).tolist()}
    fresh = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):  # a cache that is mounted read-only still serves
        fresh.write_text(json.dumps(content) + "\n", encoding="utf-8")
        fresh.replace(path)
