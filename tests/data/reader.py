"""Reads the golden files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

GOLDEN: Final = Path(__file__).parent
VOCABULARY: Final = GOLDEN / "vocabulary.txt"
"""Of 4,000 pieces, trained on the books of tools/demo_preset. The golden files of tokenizers have its ids."""
PRESETS: Final = ("below", "equal", "above")
CASES: Final = ("trailing_padding", "hole_in_mask", "segment_one", "everything", "length_one", "length_max")
INPUTS: Final = ("token_ids", "segment_ids", "padding_mask")
OUTPUTS: Final = ("sequence_output", "pooled_output")
TRANSFORMERS: Final = GOLDEN / "transformers"
STYLES: Final = tuple(sorted(path.stem for path in TRANSFORMERS.glob("*.npz")))
"""The checkpoints that transformers saved, each in a style of its own."""

Arrays = dict[str, NDArray[Any]]


def read_case(preset: str, case: str) -> tuple[Arrays, Arrays]:
    """One case's inputs and KerasHub's outputs, by name."""
    with np.load(GOLDEN / f"{preset}.npz") as arrays:
        inputs = {name: arrays[f"{case}/{name}"] for name in INPUTS}
        return inputs, {name: arrays[f"{case}/{name}"] for name in OUTPUTS}


def read_hidden(style: str, case: str) -> NDArray[Any]:
    """Returns the outputs of transformers for the inputs of `read_case("below", case)`: (B, T, H)."""
    with np.load(TRANSFORMERS / f"{style}.npz") as arrays:
        hidden: NDArray[Any] = arrays[case]
        return hidden
