"""Downloads the training texts and reads sentences from them.

Every source permits training and distribution of the result; NOTICE lists the licenses. Versions are pinned, so that a
changed package stops the build instead of changing the preset. `apt-get` downloads, `dpkg-deb` unpacks; nothing is
installed.
"""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

BOOKS: Final = Path(__file__).parent / "books"

# The text of a book from this line on is held out: tests/data/demo_quality.json has passages of it
HELD_OUT_FROM: Final = {"northanger_abbey.txt": "CHAPTER 25"}

# Debian 12's packages and versions
PACKAGES: Final = {
    "wordnet-base": "1:3.0-37",
    "jargon-text": "4.4.7-4.1",
    "postgresql-doc-15": "15.20-0+deb12u1",
    "sqlite3-doc": "3.40.1-2+deb12u2",
}
WORDNET: Final = "usr/share/wordnet"

MIN_WORDS, MAX_WORDS = 4, 45
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z])")
_MARKUP = re.compile(r"[{}_*|]|:\s*n\.|--+")
_SKIPPED_TAGS: Final = frozenset({"script", "style", "pre", "table", "head", "svg", "code-block"})
_BLOCKS: Final = frozenset({"p", "li", "dd", "dt", "h1", "h2", "h3", "h4", "div", "blockquote", "td"})


def download(folder: Path) -> None:
    """Downloads and unpacks the Debian packages into `folder`; skips those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in PACKAGES.items():
        unpacked = folder / name
        if unpacked.is_dir():
            continue
        subprocess.run(["apt-get", "download", f"{name}={version}"], cwd=folder, check=True)  # noqa: S603, S607
        (package,) = folder.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, unpacked], check=True)  # noqa: S603, S607


def documents(folder: Path) -> Iterator[list[str]]:
    """Yields documents as lists of consecutive sentences: pages, chapters and entries."""
    yield from books()
    yield from _jargon(folder / "jargon-text")
    for name in ("postgresql-doc-15", "sqlite3-doc"):
        for path in sorted((folder / name / "usr/share/doc").rglob("*.html")):
            yield _page(path)


def books() -> Iterator[list[str]]:
    """Yields chapters as lists of sentences, without those that are held out."""
    for path in sorted(BOOKS.glob("*.txt")):
        yield from _book(path)


def _book(path: Path) -> Iterator[list[str]]:
    text = path.read_text(encoding="utf-8")
    text = text.partition(HELD_OUT_FROM.get(path.name, "\0"))[0]
    for chapter in re.split(r"\n\s*CHAPTER [^\n]*\n", text):
        yield sentences(chapter.split("\n\n"))


def _jargon(folder: Path) -> Iterator[list[str]]:
    text = gzip.decompress((folder / "usr/share/doc/jargon-text/jargon.txt.gz").read_bytes()).decode("utf-8", "replace")
    for entry in re.split(r"\n\s*:(?=[^:\n]+:)", text)[1:]:
        head, _, body = entry.partition(":")
        if len(body) < 10_000:  # the last one is followed by the appendices
            yield sentences([f"{head}: {body}"])


def _page(path: Path) -> list[str]:
    parser = _Paragraphs()
    parser.feed(path.read_text(encoding="utf-8", errors="replace"))
    return sentences(parser.paragraphs)


def sentences(paragraphs: Iterable[str]) -> list[str]:
    r"""Splits paragraphs into sentences of prose: not too short, not too long, and mostly of letters.

    Example:
        >>> sentences(["It rained all day.  The road\\nwas closed (again)."])
        ['It rained all day.', 'The road was closed (again).']
    """
    found = []
    for paragraph in paragraphs:
        text = " ".join(_MARKUP.sub(" ", paragraph).split())
        found += [sentence for sentence in _SENTENCE_END.split(text) if _is_prose(sentence)]
    return found


def _is_prose(sentence: str) -> bool:
    letters = sum(character.isalpha() or character == " " for character in sentence)
    return MIN_WORDS <= len(sentence.split()) <= MAX_WORDS and letters >= 0.85 * len(sentence)


class _Paragraphs(HTMLParser):
    """Collects the text of a page's blocks, without code and tables."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._text: list[str] = []
        self._skipping: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """See `HTMLParser`."""
        if tag in _SKIPPED_TAGS:
            self._skipping.append(tag)
        if tag in _BLOCKS:
            self._end()

    def handle_endtag(self, tag: str) -> None:
        """See `HTMLParser`."""
        if self._skipping and self._skipping[-1] == tag:
            self._skipping.pop()
        if tag in _BLOCKS:
            self._end()

    def handle_data(self, data: str) -> None:
        """See `HTMLParser`."""
        if not self._skipping:
            self._text.append(data)

    def _end(self) -> None:
        if self._text:
            self.paragraphs.append("".join(self._text))
            self._text = []
