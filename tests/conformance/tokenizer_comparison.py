"""Compares the service's tokenizers with `AutoTokenizer`, folder by folder: equal, or rejected, never different."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import transformers

from electra_serve.errors import InvalidInput, PresetError
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer, load_tokenizer
from electra_serve.presets.tokenizers.pairs import TextOrPair
from electra_serve.serving.tokenization import check_tokenized
from electra_serve.serving.validation import InputLimits
from electra_serve.tensors import Truncation
from tests.conformance.tokenizer_folders import Folder
from tests.conformance.transformers_text import noise, oddities, sentences

TEXTS: Final = 200
LENGTH: Final = 12
POSITIONS: Final = 10**6
THEIR_RULES: Final[Mapping[Truncation, tuple[str, str | None]]] = MappingProxyType(
    {
        Truncation.LONGEST_FIRST: ("longest_first", None),
        Truncation.ONLY_FIRST: ("only_first", None),
        Truncation.ONLY_SECOND: ("only_second", None),
        Truncation.RIGHT: ("longest_first", "right"),
        Truncation.LEFT: ("longest_first", "left"),
    }
)
"""Our rules: the name of theirs, and the side to set, if ours names one."""
CONTEXTS: Final = (
    "[E1] hello [/E1] world", "x[E1]y [/E1]z", "[E1][E1] [e1]", "Covid covid covids COVID", "[MASK]ed [ MASK ] [mask]",
    "Alice alice, malice", "the white rabbit", "a\tb a b", "\u65e5\u672c[E1]\u65e5 \u672c", "<s> a </s>", "rabbits",
    "[3] [44] [45] [0]", "[CLS] [SEP] [PAD] [UNK]", " [E1] ", "caf\u00e9 Caf\u00c9 cafe\u0301", "", " ", "\n", "\u00a0",
    "a",
)  # fmt: skip

Row = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of one folder.

    Attributes:
        folder: Its name.
        reason: Why it takes no text; "" if it does.
        equal: Texts with the ids and segments of transformers.
        rejected: Texts that both reject, or whose ids the model has no rows for.
        different: Descriptions of the others.
    """

    folder: str
    reason: str
    equal: int
    rejected: int
    different: Sequence[str]


@cache
def texts() -> tuple[TextOrPair, ...]:
    """Two hundred texts and pairs."""
    generator = random.Random(13)
    singles = [*generator.sample(sentences(), 40), *generator.sample(oddities(), 40), *noise(40), *CONTEXTS]
    pairs = [tuple(generator.sample(singles, 2)) for _ in range(TEXTS - len(singles))]
    return (*singles, *pairs)  # type: ignore[arg-type]  # a sample of two is a pair


def compare(folder: Folder, path: Path, chosen: Sequence[TextOrPair] | None = None) -> Comparison:
    """Writes a folder and compares the chosen texts, by default all, whole and cut by each rule."""
    compared = texts() if chosen is None else chosen
    folder.write(path)
    ours = _load(path)
    count = len(compared) * (1 + len(THEIR_RULES))
    if isinstance(ours, str):
        return Comparison(folder.name, ours, 0, count, ())
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(path, **_bound(folder))
    except Exception as error:  # noqa: BLE001 - whatever it is, transformers does not read the folder
        return Comparison(folder.name, "", 0, 0, (f"transformers rejects it: {error!r:.300}",))
    theirs.own_truncation_side = theirs.truncation_side
    limits = InputLimits(resolve_preset(str(path), load_weights=False).config.vocab_size, 2, POSITIONS, TEXTS)
    equal, rejected, different = 0, 0, []
    for text, truncation in product(compared, (Truncation.NONE, *THEIR_RULES)):
        found, expected = _ours(ours, text, truncation, limits), _theirs(theirs, text, truncation)
        if found is None and (expected is None or max(expected[0], default=limits.vocab_size) >= limits.vocab_size):
            rejected += 1
        elif found == expected:
            equal += 1
        else:
            different.append(f"{text!r} {truncation}: {found} and not {expected}")
    return Comparison(folder.name, "", equal, rejected, different)


def _bound(folder: Folder) -> dict[str, int]:
    """The bound that sentence-transformers passes on from its own file."""
    sentence = folder.files.get("sentence_bert_config.json")
    return {"model_max_length": sentence["max_seq_length"]} if sentence else {}


def _load(path: Path) -> Tokenizer | str:
    try:
        tokenizer = load_tokenizer(resolve_preset(str(path), load_weights=False))
    except PresetError as error:
        return str(error)
    return tokenizer.reason if isinstance(tokenizer, NoTokenizer) else tokenizer


def _ours(tokenizer: Tokenizer, text: TextOrPair, truncation: Truncation, limits: InputLimits) -> Row | None:
    longest = POSITIONS if truncation is Truncation.NONE else min(LENGTH, tokenizer.max_length or LENGTH)
    found = tokenizer.encode([text], max_length=longest, truncation=truncation)
    try:
        check_tokenized(found, 0, limits, longest, truncation)
    except InvalidInput:
        return None
    return found.token_ids[0].tolist(), found.segment_ids[0].tolist()


def _theirs(tokenizer: Any, text: TextOrPair, truncation: Truncation) -> Row | None:
    parts = ([text],) if isinstance(text, str) else ([text[0]], [text[1]])
    try:
        found = tokenizer(*parts, **_options(tokenizer, truncation))
    except Exception:  # noqa: BLE001 - the Rust library raises no narrower class for what it cannot cut
        return None
    ids = found["input_ids"][0]
    segments = found["token_type_ids"][0] if "token_type_ids" in found else [0] * len(ids)
    return ids, segments


def _options(tokenizer: Any, truncation: Truncation) -> dict[str, Any]:
    if truncation not in THEIR_RULES:
        return {}
    rule, side = THEIR_RULES[truncation]
    tokenizer.truncation_side = side or tokenizer.own_truncation_side
    return {"truncation": rule, "max_length": min(LENGTH, tokenizer.model_max_length)}
