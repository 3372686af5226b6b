"""Windows and shards: their cuts depend only on the rows since the start of a shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.bulk.preparation import Prepared, Row
from electra_serve.bulk.reading import Position
from electra_serve.bulk.values import NULL, Chunk
from electra_serve.bulk.windows import Window, WindowLimits, cut_windows
from tests.fakes import encoding

LIMITS = WindowLimits(window_rows=4, window_bytes=100, shard_rows=7, shard_bytes=250)
WEIGHTS = st.lists(st.one_of(st.none(), st.integers(1, 120)), max_size=60)
"""Weight of each row; None for one that is rejected."""


def row(weight: int | None) -> Row:
    return NULL if weight is None else Prepared((encoding(*[1] * weight),))


def cut(weights: Sequence[int | None], chunk_rows: int, start: int = 0) -> list[Window]:
    """Cuts rows whose ids are their numbers."""

    def chunks() -> Iterator[tuple[Position, Chunk]]:
        for at in range(start, len(weights), chunk_rows):
            part = list(range(at, min(at + chunk_rows, len(weights))))
            yield Position(0, at), Chunk([str(number) for number in part], pa.array(part, pa.int64()))

    def prepare(chunk: Chunk) -> list[Row]:
        return [row(weights[int(str(value))]) for value in chunk.values]

    return list(cut_windows(chunks(), prepare, lambda prepared: prepared.positions, LIMITS, start))


def shape(windows: Sequence[Window]) -> list[tuple[int, list[object], Position, bool]]:
    return [(w.first_row, w.ids.to_pylist() if w.ids is not None else [], w.end, w.ends_shard) for w in windows]


@given(WEIGHTS, st.integers(1, 9), st.integers(1, 9))
def test_cuts_do_not_depend_on_the_chunks(weights: list[int | None], one: int, other: int) -> None:
    assert shape(cut(weights, one)) == shape(cut(weights, other))


@given(WEIGHTS, st.integers(1, 9))
def test_a_run_that_starts_at_any_shard_cuts_the_rest_alike(weights: list[int | None], chunk_rows: int) -> None:
    windows = cut(weights, chunk_rows)
    for index, window in enumerate(windows):
        if window.ends_shard:
            assert shape(cut(weights, chunk_rows, window.end.row)) == shape(windows[index + 1 :])


@given(WEIGHTS, st.integers(1, 9))
def test_windows_hold_every_row_once_within_the_limits(weights: list[int | None], chunk_rows: int) -> None:
    windows = cut(weights, chunk_rows)
    assert [id_ for _, ids, _, _ in shape(windows) for id_ in ids] == list(range(len(weights)))
    assert [window.first_row for window in windows] == [window.end.row - len(window.rows) for window in windows]
    shard_rows = 0
    for window in windows:
        size = sum(prepared.positions for _, prepared in window.accepted)
        assert 1 <= len(window.rows) <= LIMITS.window_rows
        assert size <= LIMITS.window_bytes or len(window.accepted) == 1
        assert list(window.files) == [index for index, item in enumerate(window.rows) if item is NULL]
        shard_rows += len(window.rows)
        assert shard_rows <= LIMITS.shard_rows
        if window.ends_shard:
            shard_rows = 0
    assert not windows or windows[-1].ends_shard


def test_a_shard_ends_at_its_bytes_too() -> None:
    windows = cut([90] * 6, 3)
    assert [(len(window.rows), window.ends_shard) for window in windows] == [
        *((1, False), (1, False), (1, True)),
        *((1, False), (1, False), (1, True)),
    ]
