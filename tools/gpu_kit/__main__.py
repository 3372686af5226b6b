"""Builds the kit: `python -m tools.gpu_kit [--python 3.12] [--out build/gpu-kit]`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Final

from tools.gpu_kit.wheels import ROOT, build_project, download, resolve

MAX_BYTES: Final = 60 * 10**6
SOURCES: Final = ("benchmarks", "tests/contract", "tools/gpu_kit")
"""Folders whose Python files the stages run; the wheel has the rest."""
FILES: Final = (
    *(
        f"tests/{name}.py"
        for name in ("__init__", "conftest", "fake_service", "fakes", "oip_requests", "packing", "serving", "waiting")
    ),
    *(f"tests/integration/{name}.py" for name in ("__init__", "responses", "process")),
    *(f"tests/load/{name}.py" for name in ("__init__", "payload")),
    "tools/__init__.py",
)
PYTEST_INI: Final = """[pytest]
addopts = --import-mode=importlib -ra
pythonpath = .
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""
"""Warnings are no errors there: the machine has its own versions of JAX and numpy."""


def build(out: Path, python: str) -> None:
    """Writes the kit into `out`, which is emptied first."""
    shutil.rmtree(out, ignore_errors=True)
    wheels, project = out / "wheels", out / "project"
    wheels.mkdir(parents=True)
    build_project(wheels)
    download(resolve(python), python, wheels)
    for path in project_files():
        _copy(path, project)
    (project / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
    shutil.copy(ROOT / "tools" / "gpu_kit" / "run.py", out / "run.py")


def project_files() -> list[Path]:
    """Files of the project that the stages run."""
    return [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")] + [ROOT / name for name in FILES]


def size_of(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _copy(path: Path, project: Path) -> None:
    target = project / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def main() -> int:
    """Builds the kit and checks its size."""
    parser = argparse.ArgumentParser("python -m tools.gpu_kit", description=__doc__)
    parser.add_argument("--python", default="3.12", help="Python of the GPU machine (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-kit")
    flags = parser.parse_args()
    build(flags.out, flags.python)
    size = size_of(flags.out)
    print(f"{flags.out}: {size / 1e6:.1f} MB; run there: python3 {flags.out.name}/run.py")
    if size > MAX_BYTES:
        print(f"the kit must have at most {MAX_BYTES / 1e6:.0f} MB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
