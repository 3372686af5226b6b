"""The checker of the project's prose finds what it should, and nothing else."""

from __future__ import annotations

import pytest

from tools.prose.rules import MAX_WORDS, faults, wide_lines
from tools.prose.text import Paragraph, comment_paragraphs, docstring_lines, markdown_paragraphs, python_paragraphs

MODULE = '''"""Counts sheep.

Which breed does not matter.
"""

LIMIT = 3
"""Sheep at most."""


def count(sheep):
    """Counts.

    Args:
        sheep: Whoever is in the field, `told` or not.

    Example:
        >>> count("anew")
    """
    flock = len(sheep)  # nobody else
    # Next line.
    return flock  # on the meadow
'''


def test_python_prose_is_split_into_paragraphs() -> None:
    found = [(paragraph.line, paragraph.text, paragraph.opens) for paragraph in python_paragraphs(MODULE)]

    assert found == [
        (1, "Counts sheep.", True),
        (3, "Which breed does not matter.", False),
        (7, "Sheep at most.", True),
        (11, "Counts.", True),
        (14, "Whoever is in the field, X or not.", False),
        (19, "nobody else", False),
        (20, "Next line.", False),
        (21, "on the meadow", False),
    ]


def test_docstring_lines_are_counted() -> None:
    assert docstring_lines(MODULE) == 4 + 1 + 8


def test_markdown_leaves_out_tables_and_code() -> None:
    source = "# How to\n\nPlain [text](of/a/link).\n\n| told | anew |\n\n```\nnobody\n```\n- an `item`\n"

    assert [(found.text, found.opens) for found in markdown_paragraphs(source)] == [
        ("How to", True),
        ("Plain text.", False),
        ("an X", False),
    ]


def test_names_of_tests_are_prose() -> None:
    assert [found.text for found in python_paragraphs("async def test_nobody_waits(): ...")] == ["test nobody waits"]


def test_comments_of_other_files_are_prose() -> None:
    source = "#!/bin/sh\n# Two\n# lines.\nrules:  # one more\n  summary: An alert.\n  url: a#b\n## Help\n"

    found = [(paragraph.line, paragraph.text) for paragraph in comment_paragraphs(source, "#")]

    assert found == [(2, "Two lines."), (4, "one more"), (5, "An alert."), (7, "Help")]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Where it is.", "opens with Where"),
        ("It was told.", "told: use report, log, show or return"),
        ("Clients give up early.", "give up: use abort"),
        ("It sends the answer.", "answer: use response, respond or return"),
    ],
)
def test_faults_are_found(text: str, fault: str) -> None:
    assert list(faults(Paragraph(1, text, opens=True))) == [fault]


def test_question_answering_has_answer_spans() -> None:
    assert not list(faults(Paragraph(1, "Question answering finds the best answer span, or several answer spans.")))


def test_an_opening_is_free_inside_a_docstring() -> None:
    assert not list(faults(Paragraph(1, "Whether it is so.")))


def test_sentences_have_a_longest_length() -> None:
    longest = " ".join(["word"] * MAX_WORDS) + "."

    assert not list(faults(Paragraph(1, f"{longest} W{longest[1:]}")))
    assert len(list(faults(Paragraph(1, f"Another {longest}")))) == 1


def test_wide_lines_are_found_outside_tables() -> None:
    wide = "word " * 30

    assert [number for number, _ in wide_lines(f"short\n{wide}\n| {wide} |\n```\n{wide}\n```\n")] == [2]
