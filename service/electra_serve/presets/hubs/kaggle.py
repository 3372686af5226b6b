"""Kaggle through kagglehub, imported in the child process only.

kagglehub marks complete files, resumes others, and compares an MD5 during a download, but keeps no digest. A file in
its cache is therefore compared with the hub's MD5; without one it is fetched again. Names that the server lists are
never used.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import kagglehub
import requests
from kagglehub.cache import delete_from_cache, get_cached_path, mark_as_incomplete
from kagglehub.clients import build_kaggle_client
from kagglehub.exceptions import DataCorruptionError
from kagglehub.handle import ModelHandle, parse_model_handle
from kagglehub.integrity import get_md5_checksum_from_response
from kagglesdk.models.types.model_api_service import ApiDownloadModelInstanceVersionRequest

from electra_serve.presets.folder import CONFIG_FILE
from electra_serve.presets.hubs.failure import Failure, FailureKind, FetchError, failure_of_status, one_line
from electra_serve.presets.hubs.handle import Handle


class KaggleClient:
    """One model variant on Kaggle."""

    total_bytes = None

    def __init__(self, handle: Handle) -> None:
        self._repo = handle.repo
        self._revision = handle.revision

    @property
    def version(self) -> str:
        """See `HubClient`."""
        return f"kagglehub {version('kagglehub')}"

    @property
    def folder(self) -> Path:
        """See `HubClient`."""
        return Path(get_cached_path(parse_model_handle(f"{self._repo}/1"))).parent

    def resolve(self) -> str:
        """See `HubClient`. The newest version is in the path of a file of it."""
        if self._revision is None:
            path = _fetch(self._repo, CONFIG_FILE)
            if path is None:
                raise FetchError(Failure(FailureKind.NOT_FOUND, f"it has no {CONFIG_FILE}"))
            self._revision = path.parent.name
        return self._revision

    def download(self, name: str) -> Path | None:
        """See `HubClient`."""
        handle = f"{self._repo}/{self.resolve()}"
        model = parse_model_handle(handle)
        cached = Path(get_cached_path(model, name))
        if cached.is_file():
            md5, size = _published(model, name)
            if md5 is not None and _md5_of(cached) == md5:
                return cached
            if md5 is None or cached.stat().st_size >= size:
                delete_from_cache(model, name)
            else:
                mark_as_incomplete(model, name)  # kagglehub resumes it, and compares the MD5 of the whole
        return _fetch(handle, name)


def _fetch(handle: str, name: str) -> Path | None:
    """Returns a file, None if there is none."""
    with _translated(name):
        try:
            return Path(kagglehub.model_download(handle, name))
        except requests.HTTPError as error:
            if error.response.status_code == requests.codes.not_found:
                return None
            raise


def _published(model: ModelHandle, name: str) -> tuple[str | None, int]:
    """Returns the MD5, if the hub has one, and the size of a file; reads only the head of the response."""
    request = ApiDownloadModelInstanceVersionRequest()
    request.owner_slug, request.model_slug = model.owner, model.model
    request.framework, request.instance_slug = model.framework_enum(), model.variation
    request.version_number, request.path = model.version, name
    with _translated(name), build_kaggle_client() as client:
        response = client.models.model_api_client.download_model_instance_version(request)
        return get_md5_checksum_from_response(response), int(response.headers.get("Content-Length", 0))


def _md5_of(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).digest()
    return base64.b64encode(digest).decode()


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Raises errors of kagglehub and requests as `FetchError`."""
    try:
        yield
    except requests.HTTPError as error:
        raise FetchError(failure_of_status(error.response.status_code, error.response.headers)) from error
    except requests.RequestException as error:
        raise FetchError(Failure(FailureKind.UNAVAILABLE, one_line(error))) from error
    except DataCorruptionError as error:
        raise FetchError(Failure(FailureKind.CORRUPT, f"{name} has another MD5 than the hub reports")) from error
