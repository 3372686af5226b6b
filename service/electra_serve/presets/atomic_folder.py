"""A folder that appears under its name only once it is whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from electra_serve.errors import PresetError


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `destination` when the context ends without an error.

    Raises:
        PresetError: It is taken, or cannot be written.
    """
    require_free(destination)
    destination = destination.resolve()  # "." has a name too
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    except OSError as error:
        raise _unwritable(destination, error) from error
    try:
        folder = scratch / destination.name
        folder.mkdir()
        yield folder
        folder.replace(destination)
    except OSError as error:
        raise _unwritable(destination, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def require_free(destination: Path) -> None:
    """Raises `PresetError` for a folder that is not empty."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise PresetError(f"{destination}: must be a folder that does not exist yet, or is empty; it is neither")


def _unwritable(destination: Path, error: OSError) -> PresetError:
    return PresetError(f"{destination}: cannot be written ({error.strerror})")
