"""Downloads the wheels that a machine with JAX and PyTorch lacks, as `constraints.txt` pins them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CONSTRAINTS: Final = ROOT / "constraints.txt"
TESTS: Final = ("coverage", "hypothesis", "pytest", "pytest-asyncio")
"""Needed by the contract suite."""
MACHINE: Final = ("ml-dtypes", "numpy")
"""Belong to the machine's own JAX and PyTorch."""
HUBS: Final = ("hf-xet", "httpcore2", "httpx2", "huggingface-hub", "kagglehub", "kagglesdk")
"""Needed to fetch presets only. The machine's transformers may need another huggingface-hub."""
GLIBC: Final = range(28, 16, -1)
"""Minor versions of glibc 2 in the platform tags that are accepted."""


def resolve(python: str) -> list[str]:
    """Resolves the server's and the tests' packages for Linux x86-64.

    Args:
        python: Version of the machine's Python, such as `3.12`.

    Returns:
        Pinned requirements, without those of `MACHINE` and `HUBS`.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "-", "--extra=server"]
    command += [f"--python-version={python}", "--python-platform=x86_64-manylinux_2_28"]
    command += [f"--constraint={CONSTRAINTS}", "--no-header", "--no-annotate", "--quiet"]
    command += ["--no-emit-index-url", "--no-emit-find-links"]
    command += [f"--no-emit-package={name}" for name in (*MACHINE, *HUBS)]
    done = subprocess.run(command, cwd=ROOT, input="\n".join(TESTS), stdout=subprocess.PIPE, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line and not line.startswith(("#", "-"))]


def download(requirements: list[str], python: str, folder: Path) -> None:
    """Downloads a wheel of each of `requirements` into `folder`."""
    tags = [f"--platform=manylinux_2_{minor}_x86_64" for minor in GLIBC]
    tags += ["--platform=manylinux2014_x86_64", "--platform=manylinux2010_x86_64", "--platform=manylinux1_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *tags]
    subprocess.run([*command, f"--dest={folder}", *requirements], check=True)


def build_project(folder: Path) -> None:
    """Builds the project's own wheel into `folder`."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", f"--wheel-dir={folder}", str(ROOT)], check=True)
