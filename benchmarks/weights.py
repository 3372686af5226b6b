"""One set of random weights per size, in every format of a contender.

    keras          a KerasHub preset: ours, KerasHub
    transformers   a checkpoint: torch, and the source of ONNX
    artifact       the preset compiled by `electra-serve compile`
    onnx           see `benchmarks.encoders.onnx_files`

Random weights need no download, and the arithmetic does not depend on the numbers. They are wider than at the start of
training, so that outputs depend on every position and `benchmarks.agreement` detects a wrong encoder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.apart import apart
from benchmarks.sizes import config_of

CACHE: Final = Path(__file__).parent / ".cache"
"""Ignored by git; delete it to make everything again."""
SEED: Final = 4
STDDEV: Final = 0.04


def preset_folder(size: str) -> Path:
    """Returns the KerasHub preset of one of `benchmarks.sizes.CONFIGS`, made at the first call."""
    folder = CACHE / size / "keras"
    if not folder.is_dir():
        apart(_write_preset, size, folder)
    return folder


def checkpoint_folder(size: str) -> Path:
    """Returns the same weights as a transformers checkpoint."""
    folder = CACHE / size / "transformers"
    if not folder.is_dir():
        apart(_convert, preset_folder(size), folder)
    return folder


def artifact_folder(size: str, dtype: str) -> Path:
    """Returns the same weights, compiled for the openvino engine."""
    folder = CACHE / size / f"artifact-{dtype}"
    if not folder.is_dir():
        arguments = (str(preset_folder(size)), str(folder), "--dtype", dtype)
        command = (sys.executable, "-m", "electra_serve", "compile", *arguments)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def _write_preset(size: str, folder: Path) -> None:
    _choose_backend()
    from electra_serve.model import ElectraBackbone
    from electra_serve.model.initializers import zeros
    from electra_serve.model.weights import assign
    from electra_serve.presets.weights import draw_weights

    config: dict[str, Any] = config_of(size).to_mapping()
    backbone = ElectraBackbone(**config, kernel_initializer=zeros)
    assign(backbone.weights_by_path(), draw_weights(backbone.config, SEED, STDDEV))
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    backbone.save_to_preset(unfinished)
    unfinished.replace(folder)


def _convert(source: Path, folder: Path) -> None:
    _choose_backend()
    from electra_serve.model.conversion import convert
    from electra_serve.presets.sources import resolve_preset

    convert(resolve_preset(str(source)), folder, "transformers")


def _choose_backend() -> None:
    """Keras' backend is TensorFlow unless the environment names another; either computes on the CPU."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
