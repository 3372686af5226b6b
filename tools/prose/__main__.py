"""`python -m tools.prose [path …]`: prints each fault of the project's prose, and ends with 1 if there is one."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tools.prose.rules import faults, wide_lines
from tools.prose.text import comment_paragraphs, docstring_lines, markdown_paragraphs, python_paragraphs

PATHS: Final = (
    *("service", "tools", "benchmarks", "tests", "docs", "deploy", "examples", "protos", ".ci"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("Makefile", "Dockerfile", "docker-compose.yml", "pyproject.toml"),
)
SERVICE: Final = Path("service")
MARKERS: Final = {
    **dict.fromkeys((".yml", ".yaml", ".toml", ".cfg", ".sh", "Makefile", "Dockerfile", "run"), "#"),
    ".proto": "//",
}
"""Begin comments, by suffix or name of a file."""
GENERATED: Final = (
    *(
        "proto/electra/",
        "proto/inference/",
        "protos/inference/",
        "docs/settings.md",
        "benchmarks/results/",
        "components/monitoring/rules.yaml",
    ),
    *("tools/prose/", "tests/unit/tools/test_prose.py", "tests/integration/deploy/crds/"),
    "tests/data/open_inference_rest.yaml",
)
"""Generated files, files of others, and the rules themselves."""
FLAGS: Final = SERVICE / "electra_serve/settings/schema.py"
"""Its strings are the help of flags."""
NAMES: Final = "artefact,caf,cancelled,writeable"
"""Public names: those of Python, gRPC and numpy, and the artifact's file; and the beginning of an escaped "café"."""
MAX_DOCSTRING_SHARE: Final = 0.15
"""Of the lines of the service."""


def main(argv: Sequence[str] | None = None) -> int:
    """Checks the files below the given paths."""
    parser = argparse.ArgumentParser("python -m tools.prose", description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, default=[Path(path) for path in PATHS])
    paths: list[Path] = parser.parse_args(argv).paths
    files = list(_files(paths))
    found = [f"{file}:{line}: {fault}" for file in files for line, fault in sorted(_check(file))]
    found += _spelling(files)
    share = _docstring_share(files)
    if share > MAX_DOCSTRING_SHARE:
        found.append(f"docstrings take {share:.1%} of the lines, more than {MAX_DOCSTRING_SHARE:.0%}")
    print("\n".join([*found, f"{len(files)} files, {len(found)} faults, {share:.1%} of the lines are docstrings"]))
    return bool(found)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            known = file.suffix in {".py", ".md"} or _marker(file)
            if known and not any(part in file.as_posix() for part in GENERATED):
                yield file


def _marker(file: Path) -> str | None:
    return MARKERS.get(file.suffix or file.name)


def _check(file: Path) -> Iterator[tuple[int, str]]:
    source = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        paragraphs = python_paragraphs(source)
    elif marker := _marker(file):
        paragraphs = comment_paragraphs(source, marker)
    else:
        paragraphs = markdown_paragraphs(source)
        yield from wide_lines(source)
    for paragraph in paragraphs:
        for fault in faults(paragraph):
            yield paragraph.line, fault


def _spelling(files: Sequence[Path]) -> list[str]:
    """British spellings and typing errors, as codespell finds them."""
    options = ["--builtin", "clear,en-GB_to_en-US", "--ignore-words-list", NAMES]
    command = [sys.executable, "-m", "codespell_lib", *options, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own arguments
    return done.stdout.splitlines()


def _docstring_share(files: Sequence[Path]) -> float:
    counted = (file for file in files if file.suffix == ".py" and SERVICE in file.parents and file != FLAGS)
    sources = [file.read_text(encoding="utf-8") for file in counted]
    lines = sum(source.count("\n") for source in sources)
    return sum(map(docstring_lines, sources)) / lines if lines else 0.0


if __name__ == "__main__":
    sys.exit(main())
