"""Levels, edges and cycles of small packages, and of this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from tools.import_graph import main

Write = Callable[[Mapping[str, str]], list[str]]

LAYERED: Final = {
    "__init__.py": "",
    "__main__.py": "from sample.upper import top",
    "upper/__init__.py": "from sample.upper import top",
    "upper/top.py": "import json\nimport sample.lower.base, sample.loose",
    "lower/__init__.py": "",
    "lower/base.py": "",
    "loose.py": "from sample.lower.base import *",
}
TYPED_CYCLE: Final = {
    **LAYERED,
    "upper/parts.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sample.upper.whole import Whole\n"
    ),
    "upper/whole.py": "import sample.upper.parts",
}
PACKAGE_CYCLE: Final = {**LAYERED, "lower/late.py": "import sample.loose"}
INIT_CYCLE: Final = {**LAYERED, "upper/top.py": "import sample.upper"}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a package and returns the arguments that name it."""

    def write(files: Mapping[str, str]) -> list[str]:
        for name, content in files.items():
            (tmp_path / "sample" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "sample" / name).write_text(content)
        return ["--root", str(tmp_path), "sample"]

    return write


def test_prints_levels_edges_and_no_cycle(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(write(LAYERED)) == 0
    assert capsys.readouterr().out.splitlines() == [
        "sample: packages and loose modules 5, levels 4, edges 4, cycles 0",
        "   1  sample",
        "   1  lower",
        "   2  loose → lower",
        "   3  upper → loose lower",
        "   4  __main__ → upper",
        "sample: modules 7, levels 4, edges 5, cycles 0",
    ]


@pytest.mark.parametrize(
    ("files", "cycles"),
    [
        (TYPED_CYCLE, ["sample.upper.parts sample.upper.whole"]),
        (PACKAGE_CYCLE, ["sample.loose sample.lower"]),
        (INIT_CYCLE, ["sample.upper sample.upper.top"]),
        (TYPED_CYCLE | PACKAGE_CYCLE, ["sample.loose sample.lower", "sample.upper.parts sample.upper.whole"]),
    ],
    ids=["under TYPE_CHECKING", "between packages alone", "through __init__", "two"],
)
def test_check_fails_on_a_cycle(
    files: Mapping[str, str], cycles: list[str], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*write(files), "--check"]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [f"import cycle: {cycle}" for cycle in cycles]
    assert printed.out == ""


def test_a_cycle_is_printed_and_counts_as_one_level(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(write(PACKAGE_CYCLE)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sample: packages and loose modules 5, levels 3, edges 5, cycles 1"
    assert "import cycle: sample.loose sample.lower" in lines


def test_this_package_has_no_cycle(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    assert capsys.readouterr().err == ""


def test_a_package_that_is_not_there_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--root", str(tmp_path), "missing"])
    assert f"--root must be a folder that holds the package missing; got {tmp_path}" in capsys.readouterr().err
