from __future__ import annotations

import numpy as np
import pytest

from benchmarks.orders import in_arrival_order, one_by_one, padded_tokens, real_tokens, sorted_by_length
from benchmarks.workload import CLS_ID, FIRST_ID, SEP_ID, VOCABULARY, encodings, natural_lengths, token_ids


@pytest.mark.parametrize(("percent", "length"), [(5, 10), (25, 18), (50, 26), (75, 45), (90, 91), (95, 144), (99, 262)])
def test_lengths_have_the_stated_percentiles(percent: int, length: int) -> None:
    assert np.percentile(natural_lengths(10_000), percent) == pytest.approx(length, rel=0.03)


@pytest.mark.parametrize("count", [64, 512, 10_000])
def test_any_number_of_lengths_has_the_mean(count: int) -> None:
    assert np.mean(natural_lengths(count)) == pytest.approx(43, rel=0.04)


def test_lengths_fit_the_model() -> None:
    lengths = natural_lengths(10_000)
    assert min(lengths) >= 4
    assert 500 <= max(lengths) <= 512


def test_arrival_order_says_nothing_of_length() -> None:
    lengths = natural_lengths(1000)
    assert abs(np.corrcoef(range(1000), lengths)[0, 1]) < 0.1


def test_ids_are_of_the_vocabulary() -> None:
    for row in token_ids([3, 512]):
        assert (row[0], row[-1]) == (CLS_ID, SEP_ID)
        assert row[1:-1].min() >= FIRST_ID
        assert row[1:-1].max() < VOCABULARY


def test_every_order_holds_every_sequence() -> None:
    waiting = encodings(natural_lengths(100))
    total = sum(map(len, waiting))
    for batches in (in_arrival_order(waiting, 32), sorted_by_length(waiting, 32), one_by_one(waiting)):
        assert real_tokens(batches) == total
        assert sum(len(batch) for batch in batches) == 100


def test_padding_is_what_the_orders_differ_in() -> None:
    waiting = encodings(natural_lengths(512))
    real = real_tokens(one_by_one(waiting))
    assert padded_tokens(one_by_one(waiting)) == real
    assert padded_tokens(sorted_by_length(waiting, 8)) < 1.2 * real
    assert padded_tokens(in_arrival_order(waiting, 32)) > 4 * real
