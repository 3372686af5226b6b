"""The cache folder: links to the files of fetched presets, their manifests, and locks.

hf/org/repo/<commit>/                        links into huggingface_hub's cache, and a manifest
kaggle/org/model/keras/variant/<version>/    links into kagglehub's cache, and a manifest
references/<SHA-256 of the handle>.json      the last revision of a handle that is not pinned
locks/hf/org/repo                            held during a fetch
huggingface/, kagglehub/, xet/               the clients' own caches, if `hub.cache_dir` is set
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
from electra_serve.presets.hubs.manifest import MANIFEST_FILE, Manifest, read_manifest, verify, write_manifest


def home_dir(environment: Mapping[str, str]) -> Path | None:
    """Returns the home directory; None for a user without one, such as a random user id in a container."""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111  # Path's raises without a home
    return home if home.is_absolute() else None


def default_cache_dir(environment: Mapping[str, str]) -> Path | None:
    """Returns `electra-serve/presets` in the XDG cache directory; None if there is none.

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


def client_caches(root: Path) -> Mapping[str, str]:
    """Variables that put the clients' own caches below `root`."""
    root = root.absolute()
    return {
        "HF_HUB_CACHE": str(root / "huggingface"),
        "HF_XET_CACHE": str(root / "xet"),
        "KAGGLEHUB_CACHE": str(root / "kagglehub"),
    }


class PresetCache:
    """Presets on this machine's disk.

    Args:
        root: The cache folder, created by the first write. None disables the cache and fetching.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """The cache folder; raises `PresetError` if there is none."""
        if self._root is None:
            raise PresetError("hub.cache_dir must name a folder, because the user has no home directory")
        return self._root

    def folder(self, handle: Handle) -> Path:
        """Returns the folder of a pinned handle, which need not exist."""
        return self.root / handle.hub / handle.repo / str(handle.revision)

    def find(self, handle: Handle) -> Path | None:
        """Returns the unverified folder of a handle at its last known revision; None if one of its files is gone."""
        pinned = handle if handle.pinned or self._root is None else self._last(handle)
        if self._root is None or pinned is None:
            return None
        folder = self.folder(pinned)
        return folder if folder.is_dir() and all(path.exists() for path in folder.rglob("*")) else None

    def find_listed(self, handle: Handle) -> Path | None:
        """Returns what `find` does, unless the hub was never asked for the list of its files."""
        folder = self.find(handle)
        return folder if folder is not None and _is_listed(folder) else None

    @contextmanager
    def lock(self, handle: Handle, timeout_s: float) -> Iterator[None]:
        """Holds the lock of the handle's repository; raises `PresetError`."""
        lock = self.root / "locks" / handle.hub / handle.repo
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock, timeout=timeout_s):
                yield
        except Timeout as error:
            raise PresetError(f"{handle}: another process has been fetching it for {timeout_s:g} s") from error
        except OSError as error:
            raise PresetError(
                f"hub.cache_dir must be a writable folder; cannot write {self.root}: {error.strerror}"
            ) from error

    def link(self, handle: Handle, files: Mapping[str, Path]) -> Path:
        """Creates a temporary folder of links to files, next to the folder of a pinned handle."""
        target = self.folder(handle)
        folder = target.with_name(f".{target.name}")
        shutil.rmtree(folder, ignore_errors=True)
        for name, path in files.items():
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            # Relative, so that the cache can be moved; of resolved folders, since `..` does not go back through links.
            link.symlink_to(os.path.relpath(path.parent.resolve() / path.name, link.parent.resolve()))
        return folder

    def publish(self, handle: Handle, folder: Path, manifest: Manifest) -> Path:
        """Renames a folder of `link` to its final name. A valid folder that exists stays, since it may be in use."""
        target = self.folder(handle)
        if target.is_dir():
            if _is_valid(target) and (_is_listed(target) or not manifest.listed):
                shutil.rmtree(folder)
                return target
            self.remove(target)
        write_manifest(folder, manifest)
        folder.rename(target)
        return target

    def remember(self, handle: Handle, revision: str) -> None:
        """Writes the revision that a handle means now, unless it is pinned."""
        if not handle.pinned:
            path = self._reference(handle)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps({"handle": str(handle), "revision": revision}), encoding="utf-8")
            temporary.replace(path)

    def remove(self, folder: Path) -> None:
        """Removes a folder of the cache, after a rename that hides it; the clients' files stay."""
        if folder.is_dir():
            trash = folder.with_name(f".removed-{os.getpid()}-{folder.name}")
            folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)

    def all(self) -> Iterator[tuple[Handle, Path]]:
        """Yields the unverified presets, sorted by path."""
        roots = {} if self._root is None else {hub: self._root / hub for hub in HUBS}
        for hub, root in roots.items():
            for manifest in sorted(root.rglob(MANIFEST_FILE)):
                *repo, revision = manifest.parent.relative_to(root).parts
                handle = Handle(hub, "/".join(repo), revision)
                if handle.pinned:
                    yield handle, manifest.parent

    def _last(self, handle: Handle) -> Handle | None:
        path = self._reference(handle)
        return handle.at(str(read_json(path).get("revision"))) if path.is_file() else None

    def _reference(self, handle: Handle) -> Path:
        return self.root / "references" / f"{hashlib.sha256(str(handle).encode()).hexdigest()[:32]}.json"


def _is_valid(folder: Path) -> bool:
    try:
        verify(folder)
    except PresetError:
        return False
    return True


def _is_listed(folder: Path) -> bool:
    try:
        return read_manifest(folder).listed
    except PresetError:
        return True  # damaged, which `verify` reports
