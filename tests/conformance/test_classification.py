"""Labels and spans are those of transformers' pipelines, on the same logits and real text. Needs transformers.

Answer spans are compared with golden files, since version 5 has no pipeline for them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from electra_serve import ElectraClient
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.conversion import convert_tokenizer
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer, load_tokenizer
from electra_serve.presets.tokenizers.steps import finish
from electra_serve.serving.classification.labels import label_sequence
from electra_serve.serving.classification.results import Window
from electra_serve.serving.classification.spans import label_spans
from electra_serve.tensors import Aggregation, Encoding
from tests.conformance.transformers_text import oddities, sentences
from tests.integration.process import start

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
MAX_LENGTH = 64
TEXTS = [*random.Random(3).sample([one for one in sentences() if len(one) < 200], 80), *oddities()[:40]]
LONG = random.Random(4).sample([one for one in sentences() if len(one) > 400], 15)
SHAPE = {
    "hidden_size": 32,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.4,
}

pytestmark = pytest.mark.conformance


def checkpoint(folder: Path, name: str, labels: tuple[str, ...], **config: Any) -> tuple[Any, Any]:
    """Saves a random model with the demo's vocabulary; returns it and its tokenizer."""
    demo = resolve_preset("electra_demo")
    folder.mkdir()
    convert_tokenizer(demo, folder, "transformers")
    torch.manual_seed(17)
    named = dict(enumerate(labels))
    settings = transformers.ElectraConfig(vocab_size=demo.config.vocab_size, id2label=named, **SHAPE, **config)
    model = getattr(transformers, name)(settings).eval()
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=MAX_LENGTH)
    return model, tokenizer


def load(folder: Path) -> tuple[PresetFolder, Tokenizer]:
    preset = resolve_preset(str(folder))
    tokenizer = load_tokenizer(preset)
    assert preset.head is not None
    assert not isinstance(tokenizer, NoTokenizer)
    return preset, tokenizer


def windows(model: Any, tokenizer: Tokenizer, text: str, stride: int | None) -> list[Window]:
    found = tokenizer.encode([text], max_length=MAX_LENGTH, stride=stride, aligned=True)
    assert found.alignments is not None
    made = []
    for ids, segments, alignment in zip(found.token_ids, found.segment_ids, found.alignments, strict=True):
        ones = segments * 0 + 1
        with torch.no_grad():
            logits = model(torch.tensor(ids.tolist())[None]).logits[0].numpy()
        made.append(Window(logits, Encoding(ids, segments, ones, len(ids), len(ids)), alignment))
    return made


@pytest.mark.parametrize(
    "config",
    [
        {"problem_type": "single_label_classification"},
        {"problem_type": "multi_label_classification"},
        {"problem_type": "regression"},
        {},
    ],
    ids=lambda config: config.get("problem_type", "none"),
)
@pytest.mark.parametrize("labels", [("only",), ("bad", "good", "neither")], ids=len)
def test_labels(labels: tuple[str, ...], config: Mapping[str, str], tmp_path: Path) -> None:
    if len(labels) == 1 and config.get("problem_type") == "single_label_classification":
        pytest.skip("transformers rejects it")
    model, reference = checkpoint(tmp_path / "model", "ElectraForSequenceClassification", labels, **config)
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=reference, top_k=None)
    preset, tokenizer = load(tmp_path / "model")
    assert preset.head is not None
    for text in TEXTS[:60]:
        ids = tokenizer.encode([text], max_length=10**6).token_ids[0]
        with torch.no_grad():
            logits = model(torch.tensor(ids.tolist())[None]).logits[0].numpy()
        found = finish(label_sequence(logits, preset.head, top_k=None, raw=False))
        expected = pipeline([text])[0]
        assert [label.label for label in found] == [label["label"] for label in expected]
        assert [label.score for label in found] == pytest.approx([label["score"] for label in expected], rel=1e-4)


@pytest.mark.parametrize("stride", [None, 0, 12])
@pytest.mark.parametrize("aggregation", list(Aggregation))
def test_spans(aggregation: Aggregation, stride: int | None, tmp_path: Path) -> None:
    if stride is not None and aggregation is Aggregation.NONE:
        pytest.skip("the pipeline needs an aggregation for windows, and so does the service")
    model, reference = checkpoint(tmp_path / "model", "ElectraForTokenClassification", TAGS)
    options = {} if stride is None else {"stride": stride}
    pipeline = transformers.pipeline(
        "token-classification", model=model, tokenizer=reference, aggregation_strategy=aggregation.value, **options
    )
    preset, tokenizer = load(tmp_path / "model")
    assert preset.head is not None
    count = several = 0
    for text in TEXTS if stride is None else [*LONG, *TEXTS[:20]]:
        made = windows(model, tokenizer, text, stride)
        if len(made[0].logits) > MAX_LENGTH:
            continue
        found = finish(label_spans(made, preset.head, (text,), aggregation, raw=False))
        expected = pipeline(text)
        assert [(span.label, span.start, span.end) for span in found] == [
            (span.get("entity_group") or span["entity"], span["start"], span["end"]) for span in expected
        ], text
        assert [span.score for span in found] == pytest.approx([float(span["score"]) for span in expected], rel=1e-5)
        count += len(found)
        several += len(made) > 1
    assert count > 200
    assert stride is None or several > 10


def test_the_service_gives_the_pipelines_results(tmp_path: Path) -> None:
    """By the real process, from texts to labels and spans."""
    folders = {"labels": tmp_path / "labels", "tags": tmp_path / "tags"}
    classifier = checkpoint(folders["labels"], "ElectraForSequenceClassification", ("bad", "good", "neither"))
    tagger = checkpoint(folders["tags"], "ElectraForTokenClassification", TAGS)
    texts = [text for text in TEXTS if text.strip() and len(tagger[1](text)["input_ids"]) <= MAX_LENGTH]
    labels = transformers.pipeline("text-classification", model=classifier[0], tokenizer=classifier[1], top_k=None)
    spans = transformers.pipeline(
        "token-classification", model=tagger[0], tokenizer=tagger[1], aggregation_strategy="simple"
    )
    with start(tmp_path, *(f"--models={folder}" for folder in folders.values())) as process:
        process.wait_ready()
        with ElectraClient(process.url) as client:
            labeled = client.classify(text=texts, model="labels").labels
            tagged = client.classify(text=texts, model="tags").spans
    assert len(texts) > 100
    for text, found, pieces in zip(texts, labeled, tagged, strict=True):
        (expected,) = labels([text])
        assert [label.label for label in found] == [label["label"] for label in expected], text
        assert [label.score for label in found] == pytest.approx([label["score"] for label in expected], abs=1e-4)
        assert [(span.label, span.start, span.end) for span in pieces] == [
            (span["entity_group"], span["start"], span["end"]) for span in spans(text)
        ], text
