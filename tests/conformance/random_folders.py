"""Tokenizer folders of random content: combinations that no version saved, and that transformers may still read."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from tests.conformance.tokenizer_folders import (
    CONFIG,
    ROLES,
    SPECIALS,
    Folder,
    bert_serialized,
    pieces,
    token,
    vocabulary_text,
)

CONTENTS: Final = (
    "[E1]", "[/E1]", "covid", "rabbit", "[MASK]", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "Alice", "a b", "\u65e5\u672c",
    "the", "", "Caf\u00e9", "##s",
)  # fmt: skip
CLASSES: Final = (None, "ElectraTokenizer", "ElectraTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
Draws = dict[str, tuple[float, Callable[[], Any]]]
"""Keys, each with its probability and what draws its value."""
FLAGS: Final = ("lstrip", "rstrip", "single_word", "normalized")


def random_folder(seed: int) -> Folder:
    """The folder of that seed."""
    return RandomFolder(seed).make()


class RandomFolder:
    """Draws the content of each file."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(seed)

    def make(self) -> Folder:
        """Returns one folder; it may be served or rejected."""
        class_name = self._random.choice(CLASSES)
        generic = class_name in CLASSES[3:]
        config = self._config() | ({"tokenizer_class": class_name} if class_name else {})
        files: dict[str, Any] = {CONFIG: config} if generic or self._chance(0.95) else {}
        if generic or self._chance(0.6):
            files["tokenizer.json"] = self._serialized()
        if "tokenizer.json" not in files or self._chance(0.5):
            files["vocab.txt"] = vocabulary_text() + self._random.choice(["", "\n"])
        if self._chance(0.4):
            files[SPECIALS] = self._special_map()
        if self._chance(0.3):
            added = self._random.sample(["[E1]", "[/E1]", "covid", "Alice"], self._random.randrange(4))
            files["added_tokens.json"] = {text: len(pieces()) + i for i, text in enumerate(added)}
        return Folder(f"random, seed {self._seed}", files)

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _maybe(self, options: Draws) -> dict[str, Any]:
        """Each key with its probability, at a value that is drawn."""
        return {key: draw() for key, (probability, draw) in options.items() if self._chance(probability)}

    def _config(self) -> dict[str, Any]:
        pick = self._random.choice
        roles = {role: (0.35, partial(self._role, piece)) for role, piece in ROLES.items()}
        other = dict.fromkeys(("bos_token", "eos_token", "entity_token", "x_token"), (0.1, self._piece))
        listed = dict.fromkeys(("additional_special_tokens", "extra_special_tokens"), (0.2, self._pieces))
        settings: Draws = {
            "added_tokens_decoder": (0.3, self._decoder),
            "do_lower_case": (0.4, lambda: self._chance(0.5)),
            "strip_accents": (0.1, lambda: pick([None, True, False])),
            "tokenize_chinese_chars": (0.1, lambda: self._chance(0.5)),
            "split_special_tokens": (0.1, lambda: self._chance(0.5)),
            "truncation_side": (0.1, lambda: pick(["left", "right"])),
            "model_max_length": (0.1, lambda: pick([7, 20, 10**30])),
            "model_specific_special_tokens": (0.1, lambda: {"q_token": self._piece()}),
            "add_bos_token": (0.1, lambda: True),
        }
        return self._maybe({**roles, **other, **listed, **settings})

    def _role(self, piece: str) -> Any:
        return piece if self._chance(0.8) else self._piece()

    def _special_map(self) -> dict[str, Any]:
        names = (*ROLES, "bos_token", "entity_token")
        flagged = {
            name: token(ROLES.get(name, "covid"), lstrip=self._chance(0.3)) for name in names if self._chance(0.4)
        }
        listed = dict.fromkeys(("additional_special_tokens", "extra_special_tokens"), (0.3, self._pieces))
        return flagged | self._maybe(listed)

    def _serialized(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(json.dumps(bert_serialized(lowercase=self._chance(0.5))))
        added = [entry for entry in content["added_tokens"] if self._chance(0.9)]
        for text in self._random.sample(("[E1]", "covid", "rabbit", "the"), self._random.randrange(3)):
            taken = {entry["id"] for entry in added}
            id_ = pieces().index(text) if text in pieces() else max(len(pieces()), *(i + 1 for i in taken), 0)
            added.append({"id": id_, **token(text, **self._flags()), "special": self._chance(0.5)})
        parts = {
            "truncation": (
                0.2,
                lambda: {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
            ),
            "post_processor": (0.1, lambda: None),
        }
        return {**content, "added_tokens": added, **self._maybe(parts)}

    def _decoder(self) -> dict[str, Any]:
        known = {
            str(pieces().index(text)): {**token(text), "special": True} for text in ROLES.values() if self._chance(0.7)
        }
        new = [self._object() for _ in range(self._random.randrange(3))]
        return known | {str(self._id(entry["content"], i)): entry for i, entry in enumerate(new)}

    def _id(self, text: str, position: int) -> int:
        return pieces().index(text) if text in pieces() else len(pieces()) + position

    def _pieces(self) -> Sequence[Any] | dict[str, Any]:
        if self._chance(0.2):
            return {name: self._piece() for name in ("a", "b_token")}
        return [self._piece() for _ in range(self._random.randrange(4))]

    def _piece(self) -> Any:
        if self._chance(0.6):
            return self._random.choice(CONTENTS)
        return self._object() | ({"__type": "AddedToken"} if self._chance(0.9) else {})

    def _object(self) -> dict[str, Any]:
        special = {"special": self._chance(0.5)} if self._chance(0.5) else {}
        return {"content": self._random.choice(CONTENTS), **self._flags(), **special}

    def _flags(self) -> dict[str, bool]:
        return {flag: self._chance(0.3) for flag in FLAGS if self._chance(0.7)}
