"""The examples in the docstrings of what the benchmarks decide, which needs no library that is compared."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = (
    "agreement",
    "contenders.wire",
    "flops",
    "measurements",
    "orders",
    "padding_service",
    "rounds",
    "scenarios",
    "scrape",
    "tables",
    "targets",
    "workload",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    found = doctest.testmod(import_module(f"benchmarks.{name}"))
    assert found.attempted
    assert not found.failed
