"""SHA-256 of files, and of all the files that decide a model's numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from electra_serve.errors import PresetError
from electra_serve.runtime.progress import NO_PROGRESS, Progress


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits; raises `PresetError`."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise PresetError(f"{path}: cannot be read ({error.strerror})") from error


def sha256_of_files(folder: Path, files: Iterable[Path], progress: Progress = NO_PROGRESS) -> str:
    """One SHA-256 for several files: that of `sha256sum`'s lines, sorted by name, so that a shell can make it too.

        sha256sum config.json model.weights.h5 | LC_ALL=C sort -k 2 | sha256sum

    Raises:
        PresetError: One cannot be read.
    """
    names = {file.relative_to(folder).as_posix(): file for file in files}
    sizes = {name: file.stat().st_size if file.is_file() else 0 for name, file in names.items()}
    lines, done = "", 0
    for name in sorted(names):
        progress.update("verifying", folder.name, done, sum(sizes.values()))
        lines += f"{sha256_of(names[name])}  {name}\n"
        done += sizes[name]
    progress.end()
    return hashlib.sha256(lines.encode()).hexdigest()
