"""The output `embedding`: one vector of a sequence, derived from an output of the engine.

Engines compute `cls_output` and `mean_output` in any case, so no engine and no artifact depends on a model's embedding
description. It can be overridden in the settings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.settings.schema import EmbeddingSettings
from electra_serve.tensors import Float32Array, Output, Outputs, RowOutput

LEAST_NORM: Final = 1e-12  # divisor of shorter vectors, as in torch's `normalize`
SOURCES: Final = {"mean": Output.MEAN, "cls": Output.CLS}  # pooling → the engine's output


def configured_embedding(described: EmbeddingConfig, settings: EmbeddingSettings | None) -> EmbeddingConfig:
    """Returns the model's own description with the fields that the settings override.

    Example:
        >>> configured_embedding(EmbeddingConfig("cls", normalize=True), EmbeddingSettings(normalize=False))
        EmbeddingConfig(pooling='cls', normalize=False, prompts={}, default_prompt='')
    """
    if settings is None:
        return described
    return replace(described, **settings.model_dump(include={"pooling", "normalize"}, exclude_none=True))


def engine_outputs(outputs: Outputs, embedding: EmbeddingConfig) -> Outputs:
    """Returns the outputs that an engine has to compute for `outputs`."""
    if Output.EMBEDDING not in outputs:
        return outputs
    return outputs - {Output.EMBEDDING} | {SOURCES[embedding.pooling]}


def with_embedding(row: RowOutput, embedding: EmbeddingConfig) -> RowOutput:
    """Returns `row` with its embedding, (H,) float32."""
    vector = row.get(SOURCES[embedding.pooling])
    return replace(row, embedding=unit_vector(vector) if embedding.normalize else vector)


def unit_vector(vector: Float32Array) -> Float32Array:
    """Returns a vector scaled to length 1."""
    norm = max(float(np.linalg.norm(vector)), LEAST_NORM)
    unit: Float32Array = vector / np.float32(norm)
    return unit
