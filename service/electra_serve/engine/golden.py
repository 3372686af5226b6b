"""Detects that a fetched model computes something else than when it was first loaded here.

The mean output of a fixed input is stored next to the manifest and compared at each later load. With a head, so are the
logits of several inputs. The tolerance allows for other CPUs, GPUs and library versions. A wrong activation, weight or
layer order exceeds it by far.
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
from electra_serve.tensors import HEAD_OUTPUTS, Batch, Encoding, Float32Array, Output

LENGTH: Final = 16
# By dtype of the computation. float32 allows for TF32 on GPUs (10 bits). bfloat16 measures 0.01.
# int8 measures 0.04 between CPUs with and without bfloat16 arithmetic.
TOLERANCE: Final[Mapping[str, float]] = {"float32": 0.01, "float16": 0.02, "bfloat16": 0.05, "int8": 0.1}
WIDEST: Final = max(TOLERANCE.values())  # for other dtypes
HEAD_TOLERANCE: Final = 4  # times as much for logits: they are few, and may be close to 0
HEAD_INPUTS: Final = 8
DECIMALS: Final = 5


def check_golden(engine: Engine, preset: PresetFolder) -> None:
    """Compares the output with the stored one, or stores it; raises PresetError if they differ."""
    if preset.path is None or not (preset.artifact or (preset.path / MANIFEST_FILE).is_file()):
        return  # only fetched or compiled presets have a manifest
    if preset.weights == "random" and not preset.artifact:
        return  # random weights are not part of the files
    path = preset.path / GOLDEN_FILE
    if path.is_file():
        kept = _compare(_compute(engine, preset.config.vocab_size), engine.signature.dtype, path, _remedy(preset))
        if kept or preset.artifact:
            return
    store_golden(engine, preset.config, preset.path)


def check_logits(engine: Engine, preset: PresetFolder) -> None:
    """Runs the head on the fixed input; raises PresetError if its weights overflow."""
    for output in engine.signature.outputs & HEAD_OUTPUTS:
        sequence = golden_sequence(preset.config.vocab_size, engine.signature.max_length)
        if not np.isfinite(_run(engine, sequence, output)).all():
            raise PresetError(
                f"{preset.id}: {output} of the {preset.head_name} head must be finite in {engine.signature.dtype}; its "
                "weights overflow. Use dtype float32, other weights, or `head: none` for the encoder alone"
            )


def store_golden(engine: Engine, config: BackboneConfig, folder: Path) -> None:
    """Stores the output of a warm engine, unless `folder` is read-only."""
    _write(_compute(engine, config.vocab_size), engine.signature.dtype, folder / GOLDEN_FILE)


def golden_sequence(vocab_size: int, max_length: int, number: int = 0) -> Encoding:
    """Returns the fixed input, or another one: ids spread over the vocabulary."""
    length = min(LENGTH, max_length)
    ids = ((np.arange(1, length + 1) + number * LENGTH) * 7919 % vocab_size).astype(np.int32)
    return Encoding(ids, np.zeros_like(ids), np.ones_like(ids), compute_length=length, real_tokens=length)


def distance(computed: Float32Array, kept: Float32Array) -> float:
    """Returns ‖a - b‖ / ‖b‖ of two (H,) vectors; infinity if they cannot be compared."""
    scale = float(np.linalg.norm(kept))
    if computed.shape != kept.shape or not scale:
        return float("inf")
    return float(np.linalg.norm(computed - kept)) / scale


def _compute(engine: Engine, vocab_size: int) -> dict[Output, Float32Array]:
    """Returns the mean output of the fixed input, (H,), and the logits of several, (N,), if there is a head."""
    computed = {Output.MEAN: _run(engine, golden_sequence(vocab_size, engine.signature.max_length), Output.MEAN)}
    for output in engine.signature.outputs & HEAD_OUTPUTS:
        inputs = [golden_sequence(vocab_size, engine.signature.max_length, number) for number in range(HEAD_INPUTS)]
        computed[output] = np.concatenate([_run(engine, one, output).ravel() for one in inputs])
    return computed


def _run(engine: Engine, sequence: Encoding, output: Output) -> Float32Array:
    batch = Batch.one_per_row([sequence], engine.signature.single_row(len(sequence)))
    outputs = frozenset({output})
    return engine.run(batch, outputs).extract(batch.placements[0], sequence, outputs).get(output)


def _compare(computed: Mapping[Output, Float32Array], dtype: str, path: Path, remedy: str) -> bool:
    """Raises PresetError if an output differs; returns False if the file lacks one, which was not served then."""
    content = read_json(path)
    try:
        kept = {output: np.asarray(content[output.value], np.float32) for output in computed if output.value in content}
        kept_dtype = str(content["dtype"])
        kept[Output.MEAN]  # always stored
    except (KeyError, ValueError, TypeError) as error:
        raise PresetError(f"cannot read {path}: it must hold `mean_output` and `dtype`; {remedy}") from error
    most = max(TOLERANCE.get(name, WIDEST) for name in (dtype, kept_dtype))
    for output, values in kept.items():
        allowed = most * (HEAD_TOLERANCE if output in HEAD_OUTPUTS else 1)
        found = distance(computed[output], values)
        if not found <= allowed:
            raise PresetError(
                f"{path.parent}: the output {output} must be within {allowed:g} (relative distance) of the output at "
                f"the first load; got {found:.2g}. If the change is intended, {remedy}"
            )
    return kept.keys() == computed.keys()


def _remedy(preset: PresetFolder) -> str:
    return f"compile {preset.artifact.preset:.80} again" if preset.artifact else f"delete {GOLDEN_FILE}"


def _write(computed: Mapping[Output, Float32Array], dtype: str, path: Path) -> None:
    outputs = {output.value: np.round(values.astype(float), DECIMALS).tolist() for output, values in computed.items()}
    fresh = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):  # a read-only cache can still be served
        fresh.write_text(json.dumps({"dtype": dtype, **outputs}) + "\n", encoding="utf-8")
        fresh.replace(path)
