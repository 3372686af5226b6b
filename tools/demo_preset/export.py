"""Writes the trained student as a KerasHub preset with float16 weights and a description of its embedding."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import h5py
import numpy as np
from numpy.typing import NDArray

from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.weight_files.names import counterparts, pooler_paths
from electra_serve.presets.weights import weight_shapes
from tools.demo_preset.shape import EMBEDDING, HEADS, HIDDEN, INTERMEDIATE, LAYERS, POSITIONS

EMBEDDED: Final = Path(__file__).parents[2] / "service/electra_serve/presets/embedded/electra_demo"
WEIGHTS: Final = "model.weights.h5"
DIGESTS: Final = "SHA256SUMS"
POOLER_SEED: Final = 20260101

# The tokenizer's file as KerasHub writes it
TOKENIZER: Final[Mapping[str, object]] = {
    "module": "keras_hub.src.models.electra.electra_tokenizer",
    "class_name": "ElectraTokenizer",
    "config": {
        "name": "electra_tokenizer",
        "trainable": True,
        "dtype": "int32",
        "vocabulary": None,
        "sequence_length": None,
        "lowercase": True,
        "strip_accents": True,
        "split": True,
        "suffix_indicator": "##",
        "oov_token": "[UNK]",
        "special_tokens": None,
        "special_tokens_in_strings": False,
    },
    "registered_name": "keras_hub>ElectraTokenizer",
}
# sentence-transformers' description: mean over the positions, then unit length
MODULES: Final = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
POOLING: Final = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True, "include_prompt": True}


def export(tensors: Mapping[str, NDArray[np.float32]], vocabulary: Path, folder: Path) -> None:
    """Writes the preset; the model card in `folder` stays."""
    config = BackboneConfig(
        vocab_size=len(vocabulary.read_text(encoding="utf-8").splitlines()),
        num_layers=LAYERS,
        num_heads=HEADS,
        hidden_dim=HIDDEN,
        embedding_dim=EMBEDDING,
        intermediate_dim=INTERMEDIATE,
        max_sequence_length=POSITIONS,
    )
    _write_weights(tensors, config, folder / WEIGHTS)
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    content = {
        "module": "keras_hub.src.models.electra.electra_backbone",
        "class_name": "ElectraBackbone",
        "config": {"name": "electra_backbone", "trainable": True, "dtype": policy, **config.to_mapping()},
        "registered_name": "keras_hub>ElectraBackbone",
    }
    _write(folder / "config.json", content)
    _write(folder / "metadata.json", {"parameter_count": config.parameters, "weights": "trained"})
    _write(folder / "tokenizer.json", TOKENIZER)
    _write(folder / "modules.json", MODULES)
    _write(folder / "1_Pooling/config.json", POOLING)
    shutil.copyfile(vocabulary, _parent(folder / "assets/tokenizer/vocabulary.txt"))
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / DIGESTS).write_text(f"{digest}  {WEIGHTS}\n", encoding="utf-8")


def _write_weights(tensors: Mapping[str, NDArray[np.float32]], config: BackboneConfig, path: Path) -> None:
    """Writes float16. The pooler is untrained: small random numbers, with a bias of zeros."""
    table, pooler = counterparts(config), pooler_paths(config)
    generator = np.random.default_rng(POOLER_SEED)
    drawn = generator.standard_normal((HIDDEN, HIDDEN), np.float32) / np.float32(np.sqrt(HIDDEN))
    untrained = {pooler[0]: drawn, pooler[1]: np.zeros(HIDDEN, np.float32)}
    with h5py.File(path, "w") as file:
        for name, shape in weight_shapes(config).items():
            weight = untrained[name] if name in untrained else table[name].to_keras(tensors[table[name].name], shape)
            file.create_dataset(name, data=weight.astype(np.float16))


def _write(path: Path, content: object) -> None:
    _parent(path).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
