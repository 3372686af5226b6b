"""The rules: words and openings that are not used, the length of sentences, the width of lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from tools.prose.text import Paragraph

MAX_WORDS: Final = 25
MAX_WIDTH: Final = 100
"""Characters in a line of documentation."""
OPENINGS: Final = frozenset(("How", "What", "Where", "Whether", "Which", "Who", "Whose"))
BETTER: Final[Mapping[str, str]] = {
    r"anew": "again",
    r"(?<!question )(?<!question-)(?<!questions and )answer(s|ed|ing)?(?! spans?\b)": "response, respond or return",
    r"beside": "next to",
    r"dear(er|est)?": "expensive",
    r"(gives?|gave|given|giving) up": "abort",
    r"(in|at) hand": "available",
    r"mend(s|ed|ing)?": "fix",
    r"nobody|whoever|whomever|whom": "clients",
    r"of late|lately": "recently",
    r"reckon(s|ed|ing)?": "estimate",
    r"refus(e|es|ed|ing|al|als)": "reject",
    r"surplus": "over the limit",
    r"tells?|told|telling": "report, log, show or return",
    r"to be had": "available",
    r"turn of the event loop|turns of the event loop": "event-loop iteration",
}
"""Pattern of a word → the word to use."""

_BETTER: Final = {re.compile(rf"\b({pattern})\b", re.IGNORECASE): better for pattern, better in BETTER.items()}
_SENTENCE_END: Final = re.compile(r"(?<![ (]e\.g)(?<!i\.e)(?<!etc)[.!?][)\"”]? +(?=[A-Z`\"(X0-9])")
_WORD: Final = re.compile(r"[^\W_][\w'’./×%-]*")


def faults(paragraph: Paragraph) -> Iterator[str]:
    """Yields what is wrong with a paragraph.

    Example:
        >>> list(faults(Paragraph(1, "Whether it was refused.", opens=True)))
        ['opens with Whether', 'refused: use reject']
    """
    words = _WORD.findall(paragraph.text)
    if paragraph.opens and words and words[0] in OPENINGS:
        yield f"opens with {words[0]}"
    for pattern, better in _BETTER.items():
        for match in pattern.finditer(paragraph.text):
            yield f"{match[0]}: use {better}"
    for sentence in _SENTENCE_END.split(paragraph.text):
        length = len(_WORD.findall(sentence))
        if length > MAX_WORDS:
            yield f"a sentence has {length} words, more than {MAX_WORDS}: {sentence[:60]}…"


def wide_lines(source: str) -> Iterator[tuple[int, str]]:
    """Yields the lines of a Markdown file that are too wide, except for tables, links and code."""
    fenced = False
    for number, line in enumerate(source.splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        if len(line) > MAX_WIDTH and not fenced and not line.startswith(("|", "    ")) and " " in line[MAX_WIDTH:]:
            yield number, f"{len(line)} characters wide, more than {MAX_WIDTH}"
