"""A model is rejected at its load if its head computes no numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from electra_serve.engine.factory import load_model
from electra_serve.errors import PresetError
from electra_serve.settings.schema import BatchingSettings, ModelSettings
from tests.data.reader import TRANSFORMERS

LAST = "classifier.out_proj.weight"


def test_a_head_that_overflows_is_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "classifier"
    shutil.copytree(TRANSFORMERS / "classifier", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[LAST] = np.full_like(tensors[LAST], 3e38) * np.sign(tensors[LAST])
    tensors["classifier.dense.weight"] = tensors["classifier.dense.weight"] * 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    batching = BatchingSettings(max_batch_tokens=1)

    def settings(head: str) -> ModelSettings:
        return ModelSettings.model_validate(
            {"preset": str(folder), "engine": "openvino", "dtype": "float32", "head": head}
        )

    with pytest.raises(PresetError, match="logits of the sequence_classification head must be finite in float32"):
        load_model(settings("auto"), batching)
    assert load_model(settings("none"), batching).preset.head is None
