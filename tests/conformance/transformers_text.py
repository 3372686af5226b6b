"""Texts for the comparison with transformers: sentences of both books, oddities, and noise from all over Unicode."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Final

import numpy as np

from tests.data.reader import GOLDEN

CORPUS: Final = Path(__file__).parents[2] / "tools" / "demo_preset" / "books"
NOISE_BLOCKS: Final = (
    (0x00, 0x250), (0x300, 0x370), (0x2000, 0x2100), (0x3000, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00),
    (0xFE00, 0x10000), (0x1F300, 0x1F700), (0, 0x30000),
)  # fmt: skip


def sentences() -> list[str]:
    """Every sentence of the corpus, as it is printed: with line breaks, quotes and dashes."""
    found: list[str] = []
    for path in sorted(CORPUS.glob("*.txt")):
        found += re.split(r"(?<=[.!?])\s+", path.read_text(encoding="utf-8"))
    return [sentence for sentence in found if sentence.strip()]


def oddities() -> list[str]:
    """The texts of the golden files: accents, CJK, emoji, control characters, lone marks."""
    return [str(text) for text in json.loads((GOLDEN / "tokenizer.json").read_text())["texts"]]


def noise(count: int, seed: int = 11) -> list[str]:
    """Random characters, assigned ones only, among letters and spaces."""
    generator = np.random.default_rng(seed)
    return ["".join(_character(generator) for _ in range(30)) for _ in range(count)]


def _character(generator: np.random.Generator) -> str:
    while True:
        if generator.random() < 0.3:
            return "etaoin shrdlu"[generator.integers(13)]
        char = chr(generator.integers(*NOISE_BLOCKS[generator.integers(len(NOISE_BLOCKS))]))
        if unicodedata.category(char) not in {"Cs", "Cn", "Co"}:
            return char
