"""Has every file that contenders read made, once, before any of them is started."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.encoders.onnx_files import onnx_file
from benchmarks.weights import checkpoint_folder, preset_folder


def prepare(sizes: Sequence[str]) -> None:
    """Makes the weights of each size in every format, where they are not there yet."""
    for size in sizes:
        preset_folder(size)
        checkpoint_folder(size)
        onnx_file(size, "float32")
