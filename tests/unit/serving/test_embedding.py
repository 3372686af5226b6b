"""The output `embedding`: pooled and normalized by the model's files and the settings."""

from __future__ import annotations

import numpy as np
import pytest

from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.serving.embedding import configured_embedding, engine_outputs, with_embedding
from electra_serve.settings.schema import EmbeddingSettings, Settings
from electra_serve.tensors import Output, RowOutput

ROW = RowOutput(cls_output=np.array([3, 4], np.float32), mean_output=np.array([0, 2], np.float32), length=3)
MEAN, CLS = EmbeddingConfig("mean"), EmbeddingConfig("cls")


@pytest.mark.parametrize(
    ("embedding", "expected"),
    [
        (MEAN, [0, 2]),
        (CLS, [3, 4]),
        (EmbeddingConfig("mean", normalize=True), [0, 1]),
        (EmbeddingConfig("cls", normalize=True), [0.6, 0.8]),
    ],
)
def test_an_embedding_is_pooled_and_normalized(embedding: EmbeddingConfig, expected: list[float]) -> None:
    found = with_embedding(ROW, embedding).get(Output.EMBEDDING)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_zero_vector_stays_zero() -> None:
    row = RowOutput(mean_output=np.zeros(2, np.float32))

    assert with_embedding(row, EmbeddingConfig("mean", normalize=True)).get(Output.EMBEDDING).tolist() == [0, 0]


def test_the_engine_computes_only_the_source() -> None:
    asked = frozenset({Output.EMBEDDING, Output.POOLED})

    assert engine_outputs(asked, CLS) == {Output.CLS, Output.POOLED}
    assert engine_outputs(asked, MEAN) == {Output.MEAN, Output.POOLED}
    assert engine_outputs(frozenset({Output.POOLED}), MEAN) == {Output.POOLED}


def test_settings_override_single_fields() -> None:
    described = EmbeddingConfig("cls", normalize=True, prompts={"query": "query: "})

    assert configured_embedding(described, None) is described
    assert configured_embedding(described, EmbeddingSettings(pooling="mean")) == EmbeddingConfig(
        "mean", normalize=True, prompts={"query": "query: "}
    )


def test_settings_are_checked() -> None:
    settings = Settings.model_validate({"models": [{"preset": "x", "embedding": {"normalize": True}}]})
    assert settings.models[0].embedding == EmbeddingSettings(normalize=True)
    with pytest.raises(ValueError, match="pooling"):
        Settings.model_validate({"models": [{"preset": "x", "embedding": {"pooling": "max"}}]})
