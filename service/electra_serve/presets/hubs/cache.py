"""The cache folder: where fetched presets are, what a branch meant last, and who may fetch now.

hf/org/repo/<commit>/                              a whole preset and its manifest
kaggle/org/model/keras/variant/<version>/          likewise
references/<SHA-256 of the handle>.json            the revision that a handle without one had last
staging/<SHA-256 of the handle>/                   what is being fetched: never read from
locks/hf/org/repo                                  held while fetching from there, by one process at a time
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from electra_serve.errors import PresetError
from electra_serve.presets.files import read_json
from electra_serve.presets.hubs.handle import HUBS, Handle
from electra_serve.presets.hubs.manifest import MANIFEST_FILE, Manifest, verify, write_manifest


def home_dir(environment: Mapping[str, str]) -> Path | None:
    """Finds the home directory; None if there is none, as for a user id that a container was given at random."""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111  # Path's raises without a home
    return home if home.is_absolute() else None


def default_cache_dir(environment: Mapping[str, str]) -> Path | None:
    """`electra-serve/presets` where the XDG base directory specification puts caches; None if no place is known.

    Example:
        >>> str(default_cache_dir({"XDG_CACHE_HOME": "/var/cache"}))
        '/var/cache/electra-serve/presets'
    """
    base, home = Path(environment.get("XDG_CACHE_HOME", "")), home_dir(environment)
    caches = base if base.is_absolute() else home and home / ".cache"
    return caches and caches / "electra-serve" / "presets"


def configured_cache_dir(cache_dir: str, environment: Mapping[str, str]) -> Path | None:
    """Resolves `hub.cache_dir`; None if it is below a home directory that does not exist.

    Example:
        >>> str(configured_cache_dir("~/presets", {"HOME": "/home/me"}))
        '/home/me/presets'
    """
    path = Path(cache_dir)
    if path.parts[:1] == ("~",):
        home = home_dir(environment)
        return home and home.joinpath(*path.parts[1:])
    try:
        return path.expanduser()
    except RuntimeError:  # ~name, and no such user
        return None


class PresetCache:
    """Presets on this machine's disk.

    Args:
        root: The cache folder, created when something is written. None if no place for it is known: then nothing is
            cached, and nothing can be fetched.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """The cache folder.

        Raises:
            PresetError: No place for it is known.
        """
        if self._root is None:
            raise PresetError("hub.cache_dir must name a folder, because the user has no home directory")
        return self._root

    def folder(self, handle: Handle) -> Path:
        """Where a pinned handle's files are, or would be."""
        return self.root / handle.hub / handle.repo / str(handle.revision)

    def pin(self, handle: Handle) -> Handle | None:
        """The handle where it is pinned; otherwise at the revision it had when it was last fetched, if ever."""
        if handle.pinned:
            return handle
        path = self._reference(handle)
        return handle.at(str(read_json(path).get("revision"))) if path.is_file() else None

    def find(self, handle: Handle) -> Path | None:
        """The folder of a handle, not yet verified; None where it was never fetched."""
        if self._root is None:
            return None
        pinned = self.pin(handle)
        return self.folder(pinned) if pinned is not None and self.folder(pinned).is_dir() else None

    def remember(self, handle: Handle, revision: str) -> None:
        """Notes what a handle that is not pinned means now."""
        if handle.pinned:
            return
        path = self._reference(handle)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({"handle": str(handle), "revision": revision}), encoding="utf-8")
        fresh.replace(path)

    @contextmanager
    def staging(self, handle: Handle, timeout_s: float) -> Iterator[Path]:
        """A folder to fetch `handle` into, for one process at a time. It stays, so that a later attempt can resume.

        Raises:
            PresetError: Another process fetched from that repository for all of `timeout_s`, or the cache cannot be
                written.
        """
        path = self.root / "staging" / _key(handle)
        lock = self.root / "locks" / handle.hub / handle.repo
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(parents=True, exist_ok=True)
            with FileLock(lock, timeout=timeout_s):
                yield path
        except Timeout as error:
            raise PresetError(f"{handle}: another process has been fetching it for {timeout_s:g} s") from error
        except OSError as error:
            raise PresetError(
                f"{self.root}: must be a folder that can be written, as hub.cache_dir; {error.strerror}"
            ) from error

    def publish(self, handle: Handle, files: Path, manifest: Manifest) -> Path:
        """Puts a checked folder in place by one rename. A whole one that is there already stays: it may be in use.

        Args:
            handle: Pinned.
            files: The folder, on the same file system; gone afterwards.
            manifest: What is in it.
        """
        target = self.folder(handle)
        if target.is_dir():
            try:
                verify(target)
            except PresetError:
                self.remove(target)
            else:
                return target
        write_manifest(files, manifest)
        target.parent.mkdir(parents=True, exist_ok=True)
        files.rename(target)
        return target

    def remove(self, folder: Path) -> None:
        """Removes a preset. First renamed, so that nobody finds it half gone."""
        if folder.is_dir():
            trash = self.root / "staging" / f"removed-{os.getpid()}-{folder.name}"
            trash.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)

    def all(self) -> Iterator[tuple[Handle, Path]]:
        """Every preset here, not verified, in order of its path. Folders that cannot be presets are passed over."""
        roots = {} if self._root is None else {hub: self._root / hub for hub in HUBS}
        for hub, root in roots.items():
            for manifest in sorted(root.rglob(MANIFEST_FILE)):
                *repo, revision = manifest.parent.relative_to(root).parts
                handle = Handle(hub, "/".join(repo), revision)
                if handle.pinned:
                    yield handle, manifest.parent

    def _reference(self, handle: Handle) -> Path:
        return self.root / "references" / f"{_key(handle)}.json"


def _key(handle: Handle) -> str:
    return hashlib.sha256(str(handle).encode()).hexdigest()[:32]
