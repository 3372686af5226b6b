"""Presets with each kind of head, and their logits by way of numpy."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from electra_serve.model.saving import save_head
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.folder import PresetFolder, read_preset_folder
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.weight_files.names import head_counterparts
from electra_serve.tensors import Encoding, Float32Array, Output
from tests.contract.engines import reference

HEADS: Final[Mapping[str, HeadConfig]] = {
    "sequences, ELECTRA's": HeadConfig("sequence_classification", ("bad", "good", "neither"), "softmax"),
    "sequences, BERT's": HeadConfig("sequence_classification", ("relevant",), "none", architecture="bert"),
    "tokens": HeadConfig("token_classification", ("O", "B", "I", "x"), "softmax"),
    "questions": HeadConfig("question_answering", ("start", "end"), "softmax"),
    "replaced tokens": HeadConfig("replaced_token_detection", ("replaced",), "sigmoid"),
}
STDDEV: Final = 0.05
"""Of weights: logits are then below 1 or so, and 1e-5 is a bound for float32."""


def preset_with(head: HeadConfig, folder: Path) -> PresetFolder:
    """The demo with random weights of `head`, biases included, in a new folder."""
    shutil.copytree(str(resolve_preset(DEMO_ID).path), folder)
    save_head(head, head_weights(head), folder)
    return read_preset_folder(folder, id_="headed", source="local", load_weights=True)


def head_weights(head: HeadConfig) -> dict[str, Float32Array]:
    """Random weights by their paths, always the same."""
    generator = np.random.default_rng(7)
    table = head_counterparts(head, resolve_preset(DEMO_ID).config)
    return {
        path: (STDDEV * generator.standard_normal(tensor.shape[:: -1 if tensor.transposed else 1])).astype(np.float32)
        for path, tensor in table.items()
    }


def expected_logits(head: HeadConfig, encoding: Encoding) -> Float32Array:
    """(L,) or (T, L) of one sequence; zeros where masked."""
    weights, outputs = head_weights(head), reference(encoding)
    if head.output is Output.TOKEN_LOGITS:
        x = outputs[Output.SEQUENCE]
    else:
        x = outputs[Output.POOLED if head.uses_pooler else Output.CLS]
    if head.has_dense:
        x = x @ weights["head/dense/vars/0"] + weights["head/dense/vars/1"]
        exact = head.kind == "sequence_classification"
        x = _gelu(x) if exact else _gelu_tanh(x)
    logits = x @ weights["head/output/vars/0"] + weights["head/output/vars/1"]
    masked = head.output is Output.TOKEN_LOGITS
    return np.asarray(logits * encoding.padding_mask[:, None] if masked else logits, np.float32)


def _gelu(x: Float32Array) -> Float32Array:
    erf = np.vectorize(math.erf)(x.astype(np.float64) / math.sqrt(2))
    return np.asarray(x * 0.5 * (1 + erf), np.float32)


def _gelu_tanh(x: Float32Array) -> Float32Array:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x.astype(np.float64) ** 3)
    return np.asarray(x * 0.5 * (1 + np.tanh(inner)), np.float32)
