"""The table of names, in both directions."""

from __future__ import annotations

import numpy as np
import pytest

from electra_serve.errors import PresetError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.weight_files.names import HEADS, canonical_names, counterparts, pooler_paths

CONFIG = BackboneConfig(100, 2, 4, hidden_dim=16, embedding_dim=8, intermediate_dim=32)
EQUAL = BackboneConfig(100, 2, 4, hidden_dim=16, embedding_dim=16, intermediate_dim=32)


@pytest.mark.parametrize("config", [CONFIG, EQUAL], ids=["projected", "equal"])
def test_every_weight_has_one_tensor_of_its_size(config: BackboneConfig) -> None:
    table = counterparts(config)
    assert len({counterpart.name for counterpart in table.values()}) == len(table)
    assert sum(int(np.prod(counterpart.shape)) for counterpart in table.values()) == config.parameters
    assert set(pooler_paths(config)) <= table.keys()


def test_the_pooler_is_the_last_dense_layer() -> None:
    assert counterparts(CONFIG)["layers/dense/vars/0"].name == "embeddings_project.weight"
    assert counterparts(CONFIG)["layers/dense_1/vars/0"].name == "pooler.dense.weight"
    assert counterparts(EQUAL)["layers/dense/vars/1"].name == "pooler.dense.bias"


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("layers/transformer_encoder/_self_attention_layer/query_dense/vars/0", (16, 4, 4)),
        ("layers/transformer_encoder/_self_attention_layer/query_dense/vars/1", (4, 4)),
        ("layers/transformer_encoder_1/_self_attention_layer/output_dense/vars/0", (4, 4, 16)),
        ("layers/transformer_encoder_1/_feedforward_output_dense/vars/0", (32, 16)),
        ("layers/reversible_embedding/vars/0", (100, 8)),
    ],
)
def test_there_and_back_is_the_same(path: str, shape: tuple[int, ...]) -> None:
    counterpart = counterparts(CONFIG)[path]
    weight = np.random.default_rng(0).standard_normal(shape)
    tensor = counterpart.to_transformers(weight)
    assert tensor.shape == counterpart.shape
    np.testing.assert_array_equal(counterpart.to_keras(tensor, shape), weight)


def test_a_kernel_multiplies_from_the_other_side() -> None:
    counterpart = counterparts(CONFIG)["layers/transformer_encoder/_self_attention_layer/query_dense/vars/0"]
    kernel = np.random.default_rng(0).standard_normal((16, 4, 4))
    hidden = np.random.default_rng(1).standard_normal(16)
    by_heads = np.einsum("d,dnk->nk", hidden, kernel).reshape(-1)
    np.testing.assert_allclose(counterpart.to_transformers(kernel) @ hidden, by_heads)


@pytest.mark.parametrize("prefix", ["", "electra."])
def test_each_style_has_the_same_names(prefix: str) -> None:
    names = [counterpart.name for counterpart in counterparts(CONFIG).values()]
    extra = [f"{prefix}embeddings.position_ids", *(f"{head}bias" for head in HEADS)]
    assert canonical_names([*(prefix + name for name in names), *extra]) == {name: prefix + name for name in names}


def test_old_norms_have_the_names_of_new_ones() -> None:
    old = "electra.encoder.layer.0.output.LayerNorm"
    assert canonical_names([f"{old}.gamma", f"{old}.beta"]) == {
        "encoder.layer.0.output.LayerNorm.weight": f"{old}.gamma",
        "encoder.layer.0.output.LayerNorm.bias": f"{old}.beta",
    }


@pytest.mark.parametrize(
    "names",
    [
        ["embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"],
        ["electra.embeddings.LayerNorm.bias", "embeddings.LayerNorm.bias"],
    ],
    ids=["twice", "two styles"],
)
def test_a_mixture_is_rejected(names: list[str]) -> None:
    with pytest.raises(PresetError, match="must name each tensor once, all in one style; it has '") as caught:
        canonical_names(names)
    assert len(str(caught.value)) < 200
