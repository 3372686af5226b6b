"""Kaggle, through kagglehub. Imported in the fetching process only.

kagglehub fetches a file by its name, resumes one that was cut where the server can, and compares an MD5 where the
server sends one; where it does not, only `sha256` in the settings tells a file of the right size from the right file.
Names that the server lists are never used.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import kagglehub
import requests
from kagglehub.exceptions import DataCorruptionError

from electra_serve.presets.folder import CONFIG_FILE
from electra_serve.presets.hubs.failure import Failure, FailureKind, FetchError, failure_of_status, one_line
from electra_serve.presets.hubs.handle import Handle


class KaggleClient:
    """One model variant on Kaggle.

    Args:
        handle: Which.
        staging: Not used: kagglehub takes its folder from `KAGGLEHUB_CACHE`, which the parent process set.
    """

    total_bytes = None

    def __init__(self, handle: Handle, staging: Path) -> None:  # noqa: ARG002
        self._repo = handle.repo
        self._revision = handle.revision

    @property
    def version(self) -> str:
        """See `HubClient.version`."""
        return f"kagglehub {version('kagglehub')}"

    def resolve(self) -> str:
        """See `HubClient.resolve`. The newest version is told by where kagglehub puts a file of it."""
        if self._revision is None:
            path = self._fetch(self._repo, CONFIG_FILE)
            if path is None:
                raise FetchError(Failure(FailureKind.NOT_FOUND, f"it has no {CONFIG_FILE}"))
            self._revision = path.parent.name
        return self._revision

    def download(self, name: str) -> Path | None:
        """See `HubClient.download`."""
        return self._fetch(f"{self._repo}/{self.resolve()}", name)

    def _fetch(self, handle: str, name: str) -> Path | None:
        try:
            return Path(kagglehub.model_download(handle, name))
        except requests.HTTPError as error:
            if error.response.status_code == requests.codes.not_found:
                return None
            raise FetchError(failure_of_status(error.response.status_code, error.response.headers)) from error
        except requests.RequestException as error:
            raise FetchError(Failure(FailureKind.UNAVAILABLE, one_line(error))) from error
        except DataCorruptionError as error:
            raise FetchError(Failure(FailureKind.CORRUPT, f"{name} has another MD5 than the hub says")) from error
