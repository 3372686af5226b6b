"""Threads of engines, and cores by affinity and CPU quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from electra_serve.engine.threads import engine_threads, usable_cores


@pytest.mark.parametrize(
    ("replicas", "cores", "expected"), [(1, 1, 1), (1, 2, 2), (1, 7, 7), (1, 8, 7), (2, 8, 3), (4, 2, 1)]
)
def test_the_rule_from_both_sides_of_eight_cores(replicas: int, cores: int, expected: int) -> None:
    assert engine_threads(0, replicas, cores) == expected


def test_the_settings_win() -> None:
    assert engine_threads(5, 3, cores=2) == 5


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("140000 100000", 1), ("garbage", None)],
)
def test_a_quota_of_cgroup_version_two(tmp_path: Path, limit: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert usable_cores(tmp_path) == (len(os.sched_getaffinity(0)) if expected is None else expected)


def test_a_quota_of_cgroup_version_one(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_without_cgroups_it_is_what_the_process_is_scheduled_on(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))
