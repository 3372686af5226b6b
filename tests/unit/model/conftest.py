"""Small models that the tests of this folder share. None of them changes one."""

from __future__ import annotations

import pytest

from electra_serve.model import ElectraBackbone
from electra_serve.model.loading import load_backbone
from electra_serve.presets.sources import resolve_preset
from tests.data.reader import GOLDEN


@pytest.fixture(scope="session")
def golden_backbones() -> dict[str, ElectraBackbone]:
    """The presets that KerasHub saved, loaded here."""
    return {path.name: load(path.name) for path in GOLDEN.iterdir() if (path / "config.json").is_file()}


def load(name: str, dtype: str = "float32") -> ElectraBackbone:
    """One of the presets that KerasHub saved."""
    return load_backbone(resolve_preset(str(GOLDEN / name)), dtype=dtype, load_weights=True)
