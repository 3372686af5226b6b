"""The interface of the two hub clients, which exist in the child process only."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class HubClient(Protocol):
    """Fetches files of one repository into the cache of a client library."""

    @property
    def version(self) -> str:
        """The client library and its version."""

    @property
    def folder(self) -> Path:
        """The repository's folder in the client's cache; it grows during a download."""

    @property
    def total_bytes(self) -> int | None:
        """Bytes left to fetch, known after `resolve`; None if the hub does not report sizes."""

    def resolve(self) -> str:
        """Returns the revision that the handle means now; raises `FetchError`."""

    def download(self, name: str) -> Path | None:
        """Returns a file of that revision whose digest was checked, from the cache or the hub.

        Returns:
            Its path in the client's cache; None if the revision has no file `name`.

        Raises:
            FetchError: The file is not available or differs from the hub's digest.
        """
