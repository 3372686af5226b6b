"""Real processes, whose subject is a list: the backends that they are for are not needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest

from benchmarks.worker import Unavailable, Worker


@dataclass(frozen=True, slots=True)
class Append:
    """Appends to the list, and returns its length."""

    item: int

    def answer(self, subject: list[int], /) -> int:
        subject.append(self.item)
        return len(subject)


@dataclass(frozen=True, slots=True)
class Divide:
    by: int

    def answer(self, subject: list[int], /) -> float:
        return subject[0] / self.by


def make_list() -> list[int]:
    return [8]


def test_it_keeps_its_subject_between_questions() -> None:
    with Worker("list", make_list) as worker:
        assert [worker.ask(Append(item)) for item in (1, 2)] == [2, 3]


def test_it_reports_why_a_call_failed_and_continues() -> None:
    with Worker("list", make_list) as worker:
        with pytest.raises(Unavailable, match="ZeroDivisionError"):
            worker.ask(Divide(0))
        assert worker.ask(Divide(2)) == 4


def test_it_reports_why_it_could_not_be_built() -> None:
    with pytest.raises(Unavailable, match="ValueError: invalid literal"):
        Worker("number", partial(int, "seven"))
