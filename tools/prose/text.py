"""Extracts prose from Python sources, Markdown and configuration files, as paragraphs with line numbers."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_SECTIONS: Final = frozenset(("Args:", "Attributes:", "Example:", "Raises:", "Returns:", "Yields:"))
_ENTRY: Final = re.compile(r"(\*{0,2}\w+( \([^)]*\))?|`[^`]+`): ")
_ITEM: Final = re.compile(r"([-*]|\d+\.) +")
_DIAGRAM: Final = re.compile(r"[─│└├┬┴┼┐┘┌]|\S {2,}\S|^>>> |^\.\.\. |^\|")
_LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CODE: Final = re.compile(r"`[^`]*`")
_SUMMARY: Final = re.compile(r"\s*summary: +(.*)")


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A run of prose.

    Attributes:
        line: Number of its first line in the file, from 1.
        text: Its words, on one line; code is replaced by `X`, links by their text.
        opens: True for the first paragraph of a docstring and for headings.
    """

    line: int
    text: str
    opens: bool = False


def python_paragraphs(source: str) -> Iterator[Paragraph]:
    """Yields the paragraphs of a module's docstrings and comments, and the names of its tests."""
    for line, text in docstrings(source):
        paragraphs = _split(text.splitlines(), line)
        first = next(paragraphs, None)
        if first is not None:
            yield Paragraph(first.line, first.text, opens=True)
            yield from paragraphs
    yield from _comments(source)
    yield from _test_names(source)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yields the line and text of each string that documents a module, class, function or attribute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def docstring_lines(source: str) -> int:
    """Returns the number of lines that strings of documentation take."""
    return sum(text.count("\n") + 1 for _, text in docstrings(source))


def markdown_paragraphs(source: str) -> Iterator[Paragraph]:
    """Yields a Markdown file's headings, paragraphs and list items; tables and code blocks are left out."""
    lines, fenced = source.splitlines(), False
    prose: list[str] = []
    for line in lines:
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        prose.append("" if fence or fenced or line.startswith(("|", "    ", "<")) else line)
    for paragraph in _split(prose, 1):
        heading = paragraph.text.startswith("#")
        yield Paragraph(paragraph.line, paragraph.text.lstrip("# "), opens=heading)


def comment_paragraphs(source: str, marker: str) -> Iterator[Paragraph]:
    """Yields the comments of a configuration file, and the summaries of alerts."""
    comment = re.compile(rf"(^|\s){marker}+\s+(.*)")
    run: list[str] = []
    start = 1
    for number, line in enumerate([*source.splitlines(), ""], 1):
        found = comment.search(line)
        whole = found is not None and not line[: found.start()].strip()
        if not whole:
            yield from _split(run, start)
            run, start = [], number + 1
        if found:
            run.append(found[2])
        if found and not whole:
            yield Paragraph(number, _plain(found[2]))
            run, start = [], number + 1
        if summary := _SUMMARY.match(line):
            yield Paragraph(number, _plain(summary[1]))
    yield from _split(run, start)


def _test_names(source: str) -> Iterator[Paragraph]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield Paragraph(node.lineno, node.name.replace("_", " "))


def _comments(source: str) -> Iterator[Paragraph]:
    run: list[str] = []
    start = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, text = token.start[0], re.sub(r"# (noqa|type: ignore)\S*.*", "", token.string).lstrip("# ")
        trailing = bool(token.line[: token.start[1]].strip())
        if line != last + 1 or trailing:
            yield from _split(run, start)
            run, start = [], line
        run.append(text)
        last = 0 if trailing else line
    yield from _split(run, start)


def _split(lines: list[str], first_line: int) -> Iterator[Paragraph]:
    """Splits at blank lines, headings, list items and the entries of a docstring's sections."""
    run: list[str] = []
    start = first_line
    for number, raw in enumerate([*lines, ""], first_line):
        line = raw.strip()
        diagram = bool(_DIAGRAM.search(line))
        begins = _ENTRY.match(line) or _ITEM.match(line) or line.startswith("#")
        if (not line or diagram or begins or line in _SECTIONS) and run:
            yield Paragraph(start, _plain(" ".join(run)))
            run = []
        if line and not diagram and line not in _SECTIONS:
            start = start if run else number
            run.append(line)


def _plain(text: str) -> str:
    text = _ITEM.sub("", _ENTRY.sub("", text, count=1), count=1)
    return _CODE.sub("X", _LINK.sub(r"\1", text))
