"""The Hugging Face hub, through huggingface_hub. Imported in the fetching process only.

huggingface_hub compares sizes only. The listing also has a digest of every file: a SHA-256 of large ones, git's blob
id of the others. Each file is compared with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2
from huggingface_hub import HfApi, __version__, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoSibling

from electra_serve.presets.digest import sha256_of
from electra_serve.presets.hubs.failure import Failure, FailureKind, FetchError, failure_of_status, one_line
from electra_serve.presets.hubs.files import SIDE_FILES, WEIGHT_FORMATS
from electra_serve.presets.hubs.handle import Handle

LISTING_TIMEOUT_S: Final = 30.0


class HuggingFaceClient:
    """One model repository on the Hugging Face hub.

    Args:
        handle: Which.
        staging: Where to put files.
    """

    def __init__(self, handle: Handle, staging: Path) -> None:
        self._handle = handle
        self._folder = staging / "hf"
        self._revision = ""
        self._listing: dict[str, RepoSibling] = {}

    @property
    def version(self) -> str:
        """See `HubClient.version`."""
        return f"huggingface_hub {__version__}"

    @property
    def total_bytes(self) -> int | None:
        """See `HubClient.total_bytes`."""
        suffixes = tuple(form.suffix for form in WEIGHT_FORMATS)
        wanted = [file for name, file in self._listing.items() if name in SIDE_FILES or name.endswith(suffixes)]
        return sum(file.size or 0 for file in wanted)

    def resolve(self) -> str:
        """See `HubClient.resolve`."""
        with _translated():
            info = HfApi(library_name="electra-serve").model_info(
                self._handle.repo,
                revision=self._handle.revision,
                files_metadata=True,
                timeout=LISTING_TIMEOUT_S,
            )
        self._listing = {file.rfilename: file for file in info.siblings or ()}
        self._revision = info.sha or ""
        return self._revision

    def download(self, name: str) -> Path | None:
        """See `HubClient.download`."""
        listed = self._listing.get(name)
        if listed is None:
            return None
        with _translated():
            path = Path(hf_hub_download(self._handle.repo, name, revision=self._revision, local_dir=self._folder))
        if not _is(path, listed):
            path.unlink()
            raise FetchError(Failure(FailureKind.CORRUPT, f"{name} has another digest than the hub says"))
        return path


def _is(path: Path, listed: RepoSibling) -> bool:
    """Whether the file at `path` is the listed one. Without any digest in the listing it is not."""
    if listed.lfs is not None:
        return sha256_of(path) == listed.lfs.sha256
    content = path.read_bytes()  # small: large files are in LFS
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return blob == listed.blob_id


@contextmanager
def _translated() -> Iterator[None]:
    """huggingface_hub's errors, and those of what it uses, as `FetchError`."""
    try:
        yield
    except RevisionNotFoundError as error:
        raise FetchError(Failure(FailureKind.NOT_FOUND, "it has no such revision")) from error
    except (OSError, EntryNotFoundError, httpx2.HTTPError) as error:
        raise FetchError(_failure(error)) from error


def _failure(error: BaseException) -> Failure:
    """The HTTP error that is, or caused, `error`; otherwise the hub could not be reached, or broke off."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            return failure_of_status(cause.response.status_code, cause.response.headers)
        cause = cause.__cause__
    return Failure(FailureKind.UNAVAILABLE, one_line(error))
