"""Computes every golden case with whatever backend Keras has, and writes the outputs to the file named.

A process of its own, because a process has one backend: `KERAS_BACKEND=jax python -m tests.conformance.jax_outputs F`.
"""

from __future__ import annotations

import sys

import keras
import numpy as np

from electra_serve.model.loading import load_backbone
from electra_serve.presets.sources import resolve_preset
from electra_serve.tensors import DEFAULT_OUTPUTS, ENCODER_OUTPUTS
from tests.data.reader import CASES, GOLDEN, INPUTS, PRESETS, Arrays, read_case
from tests.packing import compute_rows, pack_rows


def main(path: str) -> None:
    """Writes `<preset>/<case>/<output>` arrays, as a model's call and as `compute_outputs` returns them."""
    arrays: Arrays = {"backend": np.array(keras.backend.backend())}
    for preset in PRESETS:
        backbone = load_backbone(resolve_preset(str(GOLDEN / preset)), dtype="float32", load_weights=True)
        for case in CASES:
            inputs, _ = read_case(preset, case)
            called = backbone(inputs)
            computed = compute_rows(backbone, pack_rows(*(inputs[name] for name in INPUTS)), DEFAULT_OUTPUTS)
            for output in ENCODER_OUTPUTS:
                if output in DEFAULT_OUTPUTS:
                    arrays[f"{preset}/{case}/{output}/called"] = np.asarray(called[output])
                    arrays[f"{preset}/{case}/{output}/computed"] = computed[output]
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types its one option, not the arrays


if __name__ == "__main__":
    main(sys.argv[1])
