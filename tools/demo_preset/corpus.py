"""Assembles the training texts: documents in order, then a fixed shuffle of all other sentences."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.demo_preset import sources
from tools.demo_preset.templates import Templates, definitions
from tools.demo_preset.wordnet import Synset, paraphrases, read

SEED: Final = 20260101
MAX_CHARACTERS: Final = 240

DOCUMENT_SENTENCES: Final = 8192
DRAWN: Final = {
    "question": 42_000, "sentence": 36_000, "statement": 36_000, "noun": 50_000, "fact": 10_000, "meaning": 6_000
}  # fmt: skip
EXAMPLES, PARAPHRASES, DEFINITIONS = 40_000, 25_000, 50_000


@dataclass(frozen=True, slots=True)
class Corpus:
    """Distinct training texts; `documents` are ranges of consecutive sentences."""

    texts: list[str]
    documents: list[tuple[int, int]]


def build(folder: Path, path: Path) -> Corpus:
    """Reads the corpus at `path`, or builds it from the sources in `folder` and writes it."""
    if not path.exists():
        corpus = _assemble(folder)
        path.write_text(json.dumps({"texts": corpus.texts, "documents": corpus.documents}), encoding="utf-8")
    content = json.loads(path.read_text(encoding="utf-8"))
    return Corpus(content["texts"], [(start, end) for start, end in content["documents"]])


def _assemble(folder: Path) -> Corpus:
    generator = random.Random(SEED)  # noqa: S311
    documents = list(sources.documents(folder))
    generator.shuffle(documents)
    texts: dict[str, None] = {}
    ranges = []
    for document in documents:
        start = len(texts)
        texts.update(dict.fromkeys(sentence for sentence in document if len(sentence) <= MAX_CHARACTERS))
        if len(texts) - start >= 4:
            ranges.append((start, len(texts)))
        if len(texts) >= DOCUMENT_SENTENCES:
            break
    short = [
        text for text in _sentences(read(folder / "wordnet-base" / sources.WORDNET), generator) if text not in texts
    ]
    short = list(dict.fromkeys(short))
    generator.shuffle(short)
    return Corpus([*texts, *short], ranges)


def _sentences(synsets: dict[str, Synset], generator: random.Random) -> Iterator[str]:
    templates = Templates(synsets, SEED)
    for kind, number in DRAWN.items():
        yield from templates.draw(getattr(templates, kind), number)
    yield from _sample((text for synset in synsets.values() for text in synset.examples), EXAMPLES, generator)
    yield from _sample((text for synset in synsets.values() for text in paraphrases(synset)), PARAPHRASES, generator)
    common = sorted(synsets.values(), key=lambda synset: -synset.count)[: DEFINITIONS // 2]
    yield from (text for synset in common for text in definitions(synset, generator))


def _sample(texts: Iterable[str], number: int, generator: random.Random) -> list[str]:
    found = [text for text in texts if len(text) <= MAX_CHARACTERS and " " in text]
    return generator.sample(found, min(number, len(found)))
