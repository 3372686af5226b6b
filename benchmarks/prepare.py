"""Makes every file that contenders read before any of them starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from subprocess import CalledProcessError

from benchmarks.encoders.onnx_files import onnx_file
from benchmarks.weights import artifact_folder, checkpoint_folder, preset_folder

log = logging.getLogger(__name__)


def prepare(sizes: Sequence[str]) -> None:
    """Makes the weights of each size in every missing format."""
    for size in sizes:
        preset_folder(size)
        checkpoint_folder(size)
        onnx_file(size, "float32")
        _try_artifacts(size)


def _try_artifacts(size: str) -> None:
    """Makes the artifacts if the openvino engine is installed; their users report it otherwise."""
    for dtype in ("float32", "bfloat16", "int8"):
        try:
            artifact_folder(size, dtype)
        except CalledProcessError as error:
            log.warning("%s: no %s artifact: electra-serve compile ended with %d", size, dtype, error.returncode)
