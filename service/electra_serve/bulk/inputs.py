"""Input files: their formats by name, and digests that detect a change between two runs."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

import pyarrow as pa

from electra_serve.errors import BulkConflict, BulkError

Format = Literal["parquet", "arrow", "csv", "tsv", "jsonl", "text"]
Compression = Literal["gzip", "zstd"]

OUTPUT_ENDINGS: Final = ("", ".partial", ".manifest.json", ".rejects.jsonl")
"""Endings of the names of an output and of the files next to it."""
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
STDIN: Final = "-"
ENDINGS: Final[Mapping[str, Format]] = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
    ".text": "text",
}
_COMPRESSED: Final[Mapping[str, Compression]] = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, or standard input, whose path is `-`."""

    path: str
    format: Format
    compression: Compression | None = None
    size: int = 0
    sha256: str = ""
    modified_ns: int = 0

    @property
    def is_stdin(self) -> bool:
        """True for standard input, which is read once."""
        return self.path == STDIN

    @property
    def shown(self) -> str:
        """Name in messages."""
        return shown_name(self.path)

    def identity(self) -> dict[str, object]:
        """Returns the part that decides the output, as JSON values."""
        return {"name": Path(self.path).name, "format": self.format, "size": self.size, "sha256": self.sha256}

    def check_unchanged(self) -> None:
        """Raises `BulkError` if the file has changed since it was found."""
        if self.is_stdin:
            return
        with reading(self.path):
            now = Path(self.path).stat()
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified_ns):
            raise BulkError(f"cannot read {self.path}: it changed while it was read")


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns errors of reading `path` into a `BulkError` of one line; pyarrow's are `OSError` and `ValueError`."""
    try:
        yield
    except (OSError, ValueError, EOFError, KeyError, pa.ArrowException) as error:
        raise BulkError(f"cannot read {shown_name(path)}: {describe(error)}") from error


def shown_name(path: str) -> str:
    """Returns the name of an input in messages."""
    return "standard input" if path == STDIN else path


def describe(error: BaseException) -> str:
    """Returns an error's reason in one line."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())[:300] or type(error).__name__


def find_inputs(pattern: str, format_: Format | None = None) -> tuple[InputFile, ...]:
    """Finds the files of a path or pattern in sorted order, and digests them; see `list_inputs`.

    Args:
        pattern: A path, a pattern such as `data/*.parquet`, or `-` for standard input.
        format_: Format of every file; default: by the names.
    """
    return tuple(map(digested, list_inputs(pattern, format_)))


def list_inputs(pattern: str, format_: Format | None = None, own: Path | None = None) -> tuple[InputFile, ...]:
    """Finds the files of a path or pattern in sorted order, without reading them.

    Args:
        pattern: A path, a pattern such as `data/*.parquet`, or `-` for standard input.
        format_: Format of every file; default: by the names.
        own: Output of this run: a pattern does not name it and the files next to it, or no run would be continued.

    Raises:
        BulkError: There is none, or one has no known format.
    """
    if pattern == STDIN:
        if format_ is None or format_ == "parquet":
            raise BulkConflict("the format of standard input must be arrow, csv, tsv, jsonl or text; name it")
        return (InputFile(STDIN, format_),)
    with reading(pattern):
        if pattern and Path(pattern).exists():
            paths = [pattern]
        else:
            paths = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # absolute patterns
            paths = [path for path in paths if own is None or not _is_of(path, own)]
    if not paths:
        raise BulkError(f"cannot read {pattern}: No such file or directory")
    return tuple(_named(path, format_) for path in paths)


def identities(files: Sequence[InputFile]) -> list[dict[str, object]]:
    """Returns the identities of files, in order."""
    return [file.identity() for file in files]


def digested(file: InputFile) -> InputFile:
    """Returns the file with its size, time and digest; raises `BulkError` if it cannot be read."""
    if file.is_stdin:
        return file
    with reading(file.path), Path(file.path).open("rb") as stream:
        status = os.fstat(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return replace(file, size=status.st_size, sha256=digest, modified_ns=status.st_mtime_ns)


def _is_of(path: str, output: Path) -> bool:
    """Returns True for an output, a file in it, and the files next to it."""
    own = Path(os.path.abspath(output))  # noqa: PTH100  # symbolic links stay
    found = Path(os.path.abspath(path))  # noqa: PTH100
    names = {f"{own.name}{ending}" for ending in OUTPUT_ENDINGS}
    return any(place.name in names and place.parent == own.parent for place in (found, *found.parents))


def _named(path: str, given: Format | None) -> InputFile:
    if Path(path).is_dir():
        raise BulkConflict(f"cannot read {path}: it is a folder; name its files, such as {path}/*.parquet")
    return InputFile(path, *file_format(path, given))


def file_format(path: str, given: Format | None = None) -> tuple[Format, Compression | None]:
    """Returns format and compression by the endings of a name; raises `BulkError`.

    Example:
        >>> file_format("a.jsonl.gz"), file_format("b.parquet")
        (('jsonl', 'gzip'), ('parquet', None))
    """
    *before, last = ["", *(suffix.lower() for suffix in Path(path).suffixes)]
    compression = _COMPRESSED.get(last)
    if compression is not None:
        last = before[-1]
    found = given or ENDINGS.get(last)
    if found is None:
        raise BulkConflict(
            f"the format of {path} must be one of {', '.join(FORMATS)}; its name has none of their endings"
        )
    if compression is not None and found == "parquet":
        raise BulkConflict(f"cannot read {path}: Parquet is compressed inside; decompress the file")
    return found, compression
