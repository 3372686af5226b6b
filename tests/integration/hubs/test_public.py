"""The published weights, from the public hubs, give the published numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from electra_serve.model import ElectraBackbone
from electra_serve.presets.hubs.build import build_hubs
from electra_serve.presets.hubs.handle import Hub
from electra_serve.settings.schema import HubSettings

PRESET = "electra_small_discriminator_uncased_en"
TOKEN_IDS = [[101, 1996, 4248, 102]]
SEQUENCE_OUTPUT = [0.32287, 0.18754, -0.22272, -0.24177, 1.18977]
POOLED_OUTPUT = [-0.02974, 0.23383, 0.08430, -0.19471, 0.14822]


@pytest.mark.network
@pytest.mark.parametrize("hub", ["kaggle", "hf"])
def test_the_small_discriminator_computes_what_is_published(hub: Hub, tmp_path: Path) -> None:
    settings = HubSettings(cache_dir=str(tmp_path), prefer=hub)
    hubs = build_hubs(settings)
    folder = hubs.built_in.find(PRESET, load_weights=True)
    assert folder is not None
    assert folder.source == hub
    backbone = ElectraBackbone.from_folder(folder, load_weights=True)
    ids = np.array(TOKEN_IDS, np.int32)
    inputs = {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": np.ones_like(ids)}
    sequence_output, pooled_output = backbone(inputs)
    np.testing.assert_allclose(np.asarray(sequence_output)[0, 0, :5], SEQUENCE_OUTPUT, atol=1e-4)
    np.testing.assert_allclose(np.asarray(pooled_output)[0, :5], POOLED_OUTPUT, atol=1e-4)
