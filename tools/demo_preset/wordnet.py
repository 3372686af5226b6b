"""Reads WordNet 3.0: glosses, examples, synonyms and frequent nouns by field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PARTS: Final = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}

# Lexicographer files of nouns that templates are filled from
FIELDS: Final = {
    4: "act", 5: "animal", 6: "artifact", 7: "attribute", 8: "body", 9: "cognition", 10: "communication", 11: "event",
    12: "feeling", 13: "food", 14: "group", 15: "location", 17: "object", 18: "person", 19: "phenomenon", 20: "plant",
    21: "possession", 26: "state", 27: "substance", 28: "time",
}  # fmt: skip

_QUOTED = re.compile(r'"([^"]+)"')
_PARENTHESIS = re.compile(r"\s*\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Synset:
    """Set of synonyms with one meaning."""

    key: str  # part of speech and offset
    field: int
    words: tuple[str, ...]
    hypernyms: tuple[str, ...]  # keys of more general meanings
    definition: str
    examples: tuple[str, ...]
    counts: tuple[int, ...]  # occurrences of each word in this sense, in a tagged corpus

    @property
    def count(self) -> int:
        """Occurrences of all its words."""
        return sum(self.counts)

    @property
    def part(self) -> str:
        """Part of speech: n, v, a or r."""
        return self.key[0]


def read(folder: Path) -> dict[str, Synset]:
    """Reads every synset of the database in `folder`, by key."""
    counts = _counts(folder)
    return {synset.key: synset for part in PARTS for synset in _read_part(folder, part, counts)}


def _read_part(folder: Path, part: str, counts: dict[tuple[str, int, int], int]) -> Iterator[Synset]:
    number = "nvar".index(part) + 1
    for line in (folder / f"data.{PARTS[part]}").read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):  # the license
            continue
        data, _, gloss = line.partition(" | ")
        fields = data.split()
        length = int(fields[3], 16)
        pairs = [(fields[4 + 2 * i], int(fields[5 + 2 * i], 16)) for i in range(length)]
        lex_file = int(fields[1])
        occurrences = tuple(counts.get((word.lower(), number * 1000 + lex_file, id_), 0) for word, id_ in pairs)
        start = 5 + 2 * length
        pointers = [fields[start + 4 * i : start + 4 * i + 4] for i in range(int(fields[start - 1]))]
        definition = _QUOTED.sub("", gloss).strip(" ;\n")
        yield Synset(
            key=f"{part}{fields[0]}",
            field=lex_file,
            words=tuple(re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word, _ in pairs),
            hypernyms=tuple(f"{p[2]}{p[1]}" for p in pointers if p[0] in ("@", "@i")),
            definition=re.sub(r"\s*;\s*(;\s*)*", "; ", definition),
            examples=tuple(" ".join(text.split()) for text in _QUOTED.findall(gloss)),
            counts=occurrences,
        )


def _counts(folder: Path) -> dict[tuple[str, int, int], int]:
    """Occurrences by word, part of speech with lexicographer file, and the sense's number in that file."""
    found = {}
    for line in (folder / "cntlist.rev").read_text(encoding="latin-1").splitlines():
        key, _, count = line.split()
        word, _, sense = key.partition("%")
        kind, lex_file, id_, *_ = sense.split(":")
        part = 3 if kind == "5" else int(kind)
        found[word, part * 1000 + int(lex_file), int(id_)] = int(count)
    return found


def frequent_nouns(synsets: dict[str, Synset]) -> dict[str, list[str]]:
    """Returns nouns by field whose most frequent sense is in that field: lower case, one or two words."""
    best: dict[str, tuple[int, int]] = {}  # word → occurrences and field of its most frequent sense
    for synset in synsets.values():
        for word, count in zip(synset.words, synset.counts, strict=True):
            if synset.part == "n" and count > best.get(word, (0, 0))[0]:
                best[word] = count, synset.field
    fields: dict[str, list[str]] = {name: [] for name in FIELDS.values()}
    for word, (count, field) in sorted(best.items()):
        enough = count >= (1 if FIELDS.get(field) in {"animal", "food", "plant"} else 3)
        if field in FIELDS and enough and re.fullmatch(r"[a-z]+( [a-z]+)?", word) and len(word) > 2:
            fields[FIELDS[field]].append(word)
    return fields


def paraphrases(synset: Synset) -> Iterator[str]:
    """Yields examples of a synset with one of its words replaced by a synonym."""
    for example in synset.examples:
        for word in synset.words:
            pattern = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
            if pattern.search(example):
                yield from (pattern.sub(other, example) for other in synset.words if other != word)
                break


def short_definition(synset: Synset) -> str:
    """Returns the definition's first part, without parentheses."""
    return _PARENTHESIS.sub("", synset.definition).partition(";")[0].strip()
