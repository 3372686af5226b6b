"""The Hugging Face hub through huggingface_hub, imported in the child process only.

huggingface_hub compares sizes only. Each file, cached or fetched, is compared with the digest in the hub's list:
SHA-256 for large files, git's blob id for others. The cache names each blob by that digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2
from huggingface_hub import HfApi, __version__, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE, is_offline_mode
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoSibling

from electra_serve.presets.digest import sha256_of
from electra_serve.presets.folder import CONFIG_FILE
from electra_serve.presets.hubs.failure import Failure, FailureKind, FetchError, failure_of_status, one_line
from electra_serve.presets.hubs.files import SIDE_FILES, WEIGHT_FORMATS
from electra_serve.presets.hubs.handle import Handle

LISTING_TIMEOUT_S: Final = 30.0
_SHA256_DIGITS: Final = 64


class HuggingFaceClient:
    """One model repository. Offline (`HF_HUB_OFFLINE=1`) it finds cached files only."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._revision = ""
        self._listing: dict[str, RepoSibling] = {}

    @property
    def version(self) -> str:
        """See `HubClient`."""
        return f"huggingface_hub {__version__}"

    @property
    def folder(self) -> Path:
        """See `HubClient`."""
        return Path(HF_HUB_CACHE, repo_folder_name(repo_id=self._handle.repo, repo_type="model"))

    @property
    def total_bytes(self) -> int | None:
        """See `HubClient`."""
        suffixes = tuple(form.suffix for form in WEIGHT_FORMATS)
        wanted = [name for name in self._listing if name in SIDE_FILES or name.endswith(suffixes)]
        return sum(self._listing[name].size or 0 for name in wanted if self._cached(name) is None)

    def resolve(self) -> str:
        """See `HubClient`."""
        repo, revision = self._handle.repo, self._handle.revision
        with _translated():
            if is_offline_mode():
                found = snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=CONFIG_FILE)
                self._revision = Path(found).name
            else:
                info = HfApi(library_name="electra-serve").model_info(
                    repo, revision=revision, files_metadata=True, timeout=LISTING_TIMEOUT_S
                )
                self._revision = info.sha or ""
                self._listing = {file.rfilename: file for file in info.siblings or ()}
        return self._revision

    def download(self, name: str) -> Path | None:
        """See `HubClient`."""
        cached = self._cached(name)
        if is_offline_mode():
            return None if cached is None else _require(cached, name, _blob_name(cached))
        listed = self._listing.get(name)
        if listed is None:
            return None
        digest = listed.lfs.sha256 if listed.lfs is not None else listed.blob_id or ""
        with _translated():
            if cached is not None and not _matches(cached, digest):
                _remove(cached)
            path = Path(hf_hub_download(self._handle.repo, name, revision=self._revision))
        return path if path == cached else _require(path, name, digest)

    def _cached(self, name: str) -> Path | None:
        found = try_to_load_from_cache(self._handle.repo, name, revision=self._revision)
        return Path(found) if isinstance(found, str) else None


def _require(path: Path, name: str, digest: str) -> Path:
    """Returns `path` if its file has the digest; otherwise removes it from the cache, if that is writable."""
    if not _matches(path, digest):
        with _translated():
            _remove(path)
        raise FetchError(Failure(FailureKind.CORRUPT, f"{name} has another digest than the hub reports"))
    return path


def _matches(path: Path, digest: str) -> bool:
    if len(digest) == _SHA256_DIGITS:
        return sha256_of(path) == digest
    head = b"blob %d\0" % path.stat().st_size
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.sha1(head, usedforsecurity=False))
    return found.hexdigest() == digest


def _blob_name(path: Path) -> str:
    """The digest of a cached file; empty, which no file has, if the file system has no links to blobs."""
    return path.readlink().name if path.is_symlink() else ""


def _remove(path: Path) -> None:
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


@contextmanager
def _translated() -> Iterator[None]:
    """Raises errors of huggingface_hub and of its dependencies as `FetchError`."""
    try:
        yield
    except RevisionNotFoundError as error:
        raise FetchError(Failure(FailureKind.NOT_FOUND, "it has no such revision")) from error
    except (OSError, EntryNotFoundError, httpx2.HTTPError) as error:
        raise FetchError(_failure(error)) from error


def _failure(error: BaseException) -> Failure:
    """Returns the HTTP error that is, or caused, `error`; otherwise the hub was unreachable."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            return failure_of_status(cause.response.status_code, cause.response.headers)
        cause = cause.__cause__
    return Failure(FailureKind.UNAVAILABLE, one_line(error))
