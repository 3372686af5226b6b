"""The manifest of a fetched preset: its source, and the size and SHA-256 of each file, verified at each load."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from electra_serve.errors import PresetError
from electra_serve.presets.digest import sha256_of
from electra_serve.presets.files import read_json
from electra_serve.runtime.progress import NO_PROGRESS, Progress

MANIFEST_FILE: Final = "electra-serve.manifest.json"
# The model's output for a fixed input at its first load; see `electra_serve.engine.golden`
GOLDEN_FILE: Final = "electra-serve.golden.json"
OURS: Final = frozenset({MANIFEST_FILE, GOLDEN_FILE})
FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One fetched preset."""

    source: str  # its handle at a revision: `hf://org/repo@commit`
    fetched_at: str  # ISO 8601 in UTC
    client: str  # the library that fetched it, with its version
    files: Mapping[str, FileRecord]  # records by file name
    listed: bool = True  # False if the files were found offline, so that optional ones may be missing

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(record.size for record in self.files.values())


def record_files(folder: Path, names: Iterable[str]) -> dict[str, FileRecord]:
    """Hashes files."""
    return {name: FileRecord((folder / name).stat().st_size, sha256_of(folder / name)) for name in sorted(names)}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest into `folder`."""
    content = {"format": FORMAT, **asdict(manifest)}
    (folder / MANIFEST_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest in `folder`; raises `PresetError`."""
    path = folder / MANIFEST_FILE
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise PresetError(f"{path}: format must be {FORMAT}; got {content['format']!r:.20}")
        files = {str(name): FileRecord(**record) for name, record in content["files"].items()}  # type: ignore[attr-defined]
        source, fetched_at, client = (str(content[name]) for name in ("source", "fetched_at", "client"))
        return Manifest(source, fetched_at, client, files, content.get("listed") is not False)
    except (KeyError, TypeError, AttributeError) as error:
        raise PresetError(f"{path}: must be a manifest of electra-serve; it is malformed") from error


def verify(folder: Path, progress: Progress = NO_PROGRESS) -> Manifest:
    """Hashes all files of a folder, and returns its manifest; raises `PresetError`."""
    manifest = read_manifest(folder)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - OURS
    for name in sorted(found ^ set(manifest.files)):
        state = "was added" if name in found else "is missing"
        raise PresetError(_damaged(folder, manifest, f"{name!r:.80} {state}"))
    done = 0
    for name, record in manifest.files.items():
        progress.update("verifying", manifest.source, done, manifest.size)
        done += record.size
        size = (folder / name).stat().st_size
        if size != record.size:
            raise PresetError(_damaged(folder, manifest, f"{name} has {size} bytes, not {record.size}"))
        if sha256_of(folder / name) != record.sha256:
            raise PresetError(_damaged(folder, manifest, f"{name} has another SHA-256"))
    progress.end()
    return manifest


def _damaged(folder: Path, manifest: Manifest, what: str) -> str:
    return (
        f"{folder}: must be as fetched from {manifest.source}; {what}: "
        f"`electra-serve presets pull {manifest.source}` fetches it again"
    )
