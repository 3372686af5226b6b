"""Everyday phrases for the templates, from everyday.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final, NamedTuple

_CONTENT: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


class Topic(NamedTuple):
    """Phrases of one topic."""

    actions: list[str]  # what follows "to"
    statements: list[str]  # without their period
    advice: list[str]


class Facts(NamedTuple):
    """Things with a property, for questions and sentences."""

    questions: list[str]
    answers: list[str]
    pairs: list[str]  # `thing=property`


TOPICS: Final = {name: Topic(**topic) for name, topic in _CONTENT["topics"].items()}
FACTS: Final = {name: Facts(**facts) for name, facts in _CONTENT["facts"].items()}
QUESTIONS: Final[list[str]] = _CONTENT["questions"]
SENTENCES: Final[list[str]] = _CONTENT["sentences"]
STATEMENTS: Final[list[str]] = _CONTENT["statements"]
PEOPLE: Final[list[str]] = _CONTENT["people"]
WHEN: Final[list[str]] = _CONTENT["when"]
MEANINGS: Final[list[list[str]]] = _CONTENT["meanings"]
NOUN_FRAMES: Final[dict[str, list[str]]] = _CONTENT["noun_frames"]
