"""Texts of the tests."""

from __future__ import annotations

from typing import Final

QUERY: Final = "Who fell down a hole?"
LONG: Final = "The Queen of Hearts made some tarts, all on a summer day. " * 60
"""More tokens than either model reads."""
PASSAGES: Final = (
    "Alice fell down a very deep well.",
    "The Queen of Hearts made some tarts.",
    "The Rabbit ran down the hole, and she went after it.",
    LONG,
    "Café Zoë — naïve façade; 日本語 and 한국어, 😀!",
    "a",
    "A tea party has three guests: a Hatter, a Hare and a Dormouse.",
    "Down, down, down. Would the fall never come to an end?",
)
TEXTS: Final = (*PASSAGES, QUERY, "two\nlines", " spaces around ", '"quotes" and \\backslashes\\', "x " * 100)
