"""List of comparisons with transformers: the tests assert each check, the report prints its result.

The model has electra-small's shape, with the demo's vocabulary and random weights wide enough for attention to
distinguish positions; the text is real. Needs transformers and torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from electra_serve.model.backbone import ElectraBackbone
from electra_serve.model.conversion import convert
from electra_serve.model.loading import load_backbone
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, load_tokenizer
from electra_serve.presets.tokenizers.pairs import TextOrPair
from electra_serve.tensors import DEFAULT_OUTPUTS, Output, Truncation
from tests.conformance.transformers_text import noise, oddities, sentences
from tests.data.make_transformers_golden import STYLES, save_checkpoint
from tests.packing import compute_rows, pack_rows

TOLERANCE: Final = 1e-5
SMALL: Final = {"vocab_size": 8000, "num_hidden_layers": 12, "hidden_size": 256, "intermediate_size": 1024}
STDDEV: Final = 0.05
ROWS: Final = 16

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a check.

    Attributes:
        compared: Number of comparisons.
        worst: Largest difference of numbers, or number of texts that differ.
        bound: Largest allowed value.
    """

    compared: str
    worst: float
    bound: float


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison.

    Attributes:
        source: What is loaded.
        format: Who defined its files.
        verified: What of it is compared.
        run: Compares, in an empty folder.
    """

    source: str
    format: str
    verified: str
    run: Callable[[Path], Finding]


def outputs_of_style(style: str, folder: Path) -> Finding:
    """Token outputs of a checkpoint, ours and transformers'."""
    model = save_checkpoint(style, folder / style, SMALL, stddev=STDDEV, shard_bytes=4_000_000)
    return _compare(model, _load(resolve_preset(str(folder / style))), resolve_preset(str(folder / style)))


def pooled_outputs(folder: Path) -> Finding:
    """`pooled_output` of a checkpoint with a pooler, and the same of transformers' hidden states."""
    source = convert(resolve_preset("electra_demo"), folder / "demo", "transformers")
    backbone = _load(source)
    hidden, inputs = _theirs(transformers.ElectraModel.from_pretrained(folder / "demo"))
    kernel, bias = (np.asarray(weight) for weight in backbone.pooled_dense.weights)
    pooled = _ours(backbone, inputs)[Output.POOLED]
    return Finding(f"{len(pooled)} rows", _difference(np.tanh(hidden[:, 0] @ kernel + bias), pooled), TOLERANCE)


def converted_to_transformers(folder: Path) -> Finding:
    """A KerasHub preset, converted: transformers' outputs and ours of the original."""
    source = resolve_preset("electra_demo")
    convert(source, folder / "demo", "transformers")
    return _compare(transformers.ElectraModel.from_pretrained(folder / "demo"), _load(source), source)


def tokenizer_ids(texts: Sequence[str], settings: Mapping[str, Any], folder: Path) -> Finding:
    """Ids under the same files, ours and transformers'."""
    convert(resolve_preset("electra_demo"), folder / "demo", "transformers")
    theirs = transformers.ElectraTokenizerFast.from_pretrained(folder / "demo", **settings)
    theirs.save_pretrained(folder / "demo")
    tokenizer = load_tokenizer(resolve_preset(str(folder / "demo"), load_weights=False))
    assert not isinstance(tokenizer, NoTokenizer)
    found = tokenizer.encode(texts, max_length=512, truncation=Truncation.LONGEST_FIRST).token_ids
    expected = theirs(list(texts), truncation=True, max_length=512)["input_ids"]
    wrong = sum(ours.tolist() != ids for ours, ids in zip(found, expected, strict=True))
    return Finding(f"{len(texts)} texts", wrong, 0)


def checks() -> list[Check]:
    """All of them."""
    texts = {"sentences": sentences(), "accents, CJK, emoji, controls, noise": [*oddities(), *noise(2000)]}
    settings: dict[str, dict[str, Any]] = {"uncased": {}, "cased": {"do_lower_case": False}}
    return [
        *(
            Check(
                f"{STYLES[style].model_class}, {style}",
                "transformers",
                "token outputs",
                partial(outputs_of_style, style),
            )
            for style in STYLES
        ),
        Check("ElectraModel with a pooler", "transformers", "pooled output", pooled_outputs),
        Check("electra_demo, converted", "keras to transformers", "token outputs", converted_to_transformers),
        *(
            Check(f"tokenizer, {case}", "transformers", f"ids of {kind}", partial(tokenizer_ids, chosen, changes))
            for case, changes in settings.items()
            for kind, chosen in texts.items()
        ),
    ]


def _load(preset: PresetFolder) -> ElectraBackbone:
    return load_backbone(preset, dtype="float32", load_weights=True)


def _compare(model: Any, backbone: ElectraBackbone, preset: PresetFolder) -> Finding:
    hidden, inputs = _theirs(model)
    found = _ours(backbone, inputs)[Output.SEQUENCE]
    counted = inputs["attention_mask"].astype(bool)
    worst = _difference(found[counted], hidden[counted])
    assert preset.config.hidden_dim == hidden.shape[-1]
    return Finding(f"{int(counted.sum())} tokens", worst, TOLERANCE)


def _theirs(model: Any) -> tuple[Array, dict[str, Array]]:
    """transformers' last hidden states of some sentences, and what went in: a batch, padded."""
    inputs = sentence_batch()
    with torch.no_grad():
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        output = getattr(model, "electra", model).eval()(**tensors)
    return output.last_hidden_state.numpy(), inputs


def sentence_batch() -> dict[str, Array]:
    """Sentences and a pair of them under the demo's vocabulary, as transformers' models take them."""
    tokenizer = load_tokenizer(resolve_preset("electra_demo"))
    assert not isinstance(tokenizer, NoTokenizer)
    texts: list[TextOrPair] = [*sentences()[100 : 100 + ROWS], ("Was she late?", "She was very late indeed.")]
    found = tokenizer.encode(texts, max_length=512, truncation=Truncation.LONGEST_FIRST)
    shape = len(texts), max(map(len, found.token_ids))
    names = ("input_ids", "token_type_ids", "attention_mask")
    inputs = {name: np.zeros(shape, np.int64) for name in names}
    for row, (ids, segments) in enumerate(zip(found.token_ids, found.segment_ids, strict=True)):
        inputs["input_ids"][row, : len(ids)] = ids
        inputs["token_type_ids"][row, : len(ids)] = segments
        inputs["attention_mask"][row, : len(ids)] = 1
    return inputs


def _ours(backbone: ElectraBackbone, inputs: Mapping[str, Array]) -> dict[Output, Array]:
    names = ("input_ids", "token_type_ids", "attention_mask")
    return dict(compute_rows(backbone, pack_rows(*(inputs[name] for name in names)), DEFAULT_OUTPUTS))


def _difference(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max())
