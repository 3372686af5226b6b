"""What a hub's client must do for us, and how the files' own names stay ours."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class HubClient(Protocol):
    """Fetches from one repository. Lives in the fetching process."""

    @property
    def version(self) -> str:
        """The client library and its version."""

    @property
    def total_bytes(self) -> int | None:
        """Size of all that can be fetched, once `resolve` was called; None where the hub does not tell."""

    def resolve(self) -> str:
        """Asks which revision the handle means now.

        Raises:
            FetchError: There is none, or the hub cannot tell.
        """

    def download(self, name: str) -> Path | None:
        """Fetches one file of that revision.

        Returns:
            Where it is, or None where the revision has none of that name.

        Raises:
            FetchError: It cannot be had, or is not what the hub says it is.
        """
