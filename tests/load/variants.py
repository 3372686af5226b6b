"""Small presets: versions of the embedded one with other weights, and damaged ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.sources import resolve_preset

WEIGHTS: Final = "model.weights.h5"
CONFIG: Final = "config.json"
NOISE: Final = 0.05
"""Deviation of the noise that is added to each weight, large enough to change all outputs."""


def make_version(folder: Path, seed: int) -> Path:
    """Writes the embedded preset with other weights into a new folder."""
    demo = resolve_preset(DEMO_ID).path
    assert demo is not None
    shutil.copytree(demo, folder)
    random = np.random.default_rng(seed)
    with h5py.File(folder / WEIGHTS, "r+") as file:
        for dataset in _datasets(file):
            dataset[...] += random.normal(0, NOISE, dataset.shape)
    return folder


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def _cut_short(folder: Path) -> None:
    weights = folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def _spoil_a_number(folder: Path) -> None:
    with h5py.File(folder / WEIGHTS, "r+") as file:
        dataset = _datasets(file)[0]
        dataset[..., 0] = np.nan


def _change_config(folder: Path) -> None:
    config = folder / CONFIG
    config.write_text(config.read_text().replace('"hidden_dim": 192', '"hidden_dim": 64'))


def _cut_config(folder: Path) -> None:
    (folder / CONFIG).write_text("{")


CORRUPTIONS: Final[Mapping[str, Callable[[Path], None]]] = {
    "weights cut short": _cut_short,
    "a weight that is NaN": _spoil_a_number,
    "a config of another shape": _change_config,
    "a config that is no JSON": _cut_config,
    "weights that are missing": lambda folder: (folder / WEIGHTS).unlink(),
}


def make_corrupt(folder: Path, corruption: str) -> Path:
    """Writes a preset into a new folder and damages it."""
    make_version(folder, seed=0)
    CORRUPTIONS[corruption](folder)
    return folder
