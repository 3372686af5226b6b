"""Errors that keep nothing of the functions that raised them."""

from __future__ import annotations

import weakref

import pytest

from electra_serve.runtime.frames import clear_frames


class Load:
    """Something that a function holds."""


def fail(refs: list[weakref.ref[Load]]) -> None:
    load = Load()
    refs.append(weakref.ref(load))
    try:
        int("x")
    except ValueError as error:
        inner = Load()
        refs.append(weakref.ref(inner))
        raise KeyError("wrong") from error


def test_an_error_keeps_nothing_and_a_running_function_keeps_its_own() -> None:
    refs: list[weakref.ref[Load]] = []
    mine = Load()
    with pytest.raises(KeyError) as caught:
        fail(refs)
    assert all(ref() is not None for ref in refs)
    clear_frames(caught.value)
    assert [ref() for ref in refs] == [None, None]
    assert mine is not None
