"""Fetches a handle into the cache: attempts, back-off, checks, publication."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from electra_serve.errors import PresetError
from electra_serve.presets.folder import read_preset_folder
from electra_serve.presets.hubs.cache import PresetCache
from electra_serve.presets.hubs.failure import OUTAGES, Failure, FailureKind, FetchError, delay_s
from electra_serve.presets.hubs.handle import Handle, Hub
from electra_serve.presets.hubs.manifest import Manifest, record_files
from electra_serve.presets.hubs.process import Fetched

# How to give a token to each hub's library
TOKEN_HINTS: Final[Mapping[Hub, str]] = {
    "kaggle": "KAGGLE_API_TOKEN, or ~/.kaggle/access_token",
    "hf": "HF_TOKEN, or log in with `hf auth login`",
}

HUB_NAMES: Final[Mapping[Hub, str]] = {"kaggle": "Kaggle", "hf": "the Hugging Face hub"}


class Attempt(Protocol):
    """Fetches once: `FetchProcess.run`."""

    def __call__(self, handle: Handle, *, have: str, timeout_s: float, offline: bool = False) -> Fetched:
        """See `FetchProcess.run`."""


class HubError(PresetError):
    """A preset cannot be fetched; after an `outage`, a copy fetched earlier may still be served."""

    def __init__(self, message: str, *, outage: bool) -> None:
        super().__init__(message)
        self.outage = outage


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """Limits of all attempts together: seconds, including the wait for a lock, and attempts."""

    timeout_s: float
    attempts: int


class Fetcher:
    """Fetches presets into the cache by one or more attempts."""

    def __init__(
        self,
        cache: PresetCache,
        attempt: Attempt,
        limits: RetryLimits,
        log: logging.Logger,
        *,
        sleep: Callable[[float], object] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._attempt = attempt
        self._limits = limits
        self._log = log
        self._sleep = sleep
        self._now = now

    def fetch(self, handle: Handle) -> Path:
        """Fetches the revision that the handle means now, and returns its folder.

        A folder that already existed is not verified again.

        Raises:
            HubError: The fetch failed; `outage` says whether a cached copy may be served.
            PresetError: It is not a preset, or the cache is not usable.
        """
        deadline = self._now() + self._limits.timeout_s
        with self._cache.lock(handle, self._limits.timeout_s):
            found = self._cache.find_listed(handle)
            if handle.pinned and found is not None:
                return found  # another process has just fetched it
            cached_revision = found.name if found is not None else ""
            return self._publish(handle, self._fetch(handle, cached_revision, deadline))

    def adopt(self, handle: Handle) -> Path | None:
        """Publishes files of the hub library's own cache, without the hub; None if it lacks a required one.

        Nothing is adopted from kagglehub's cache, because its files can be checked only with the hub.
        """
        if handle.hub != "hf":
            return None
        try:
            fetched = self._attempt(handle, have="", timeout_s=self._limits.timeout_s, offline=True)
        except FetchError as error:
            self._log.debug("library's cache not usable: %s: %s", handle, error)
            return None
        with self._cache.lock(handle, self._limits.timeout_s):
            return self._publish(handle, fetched)

    def _fetch(self, handle: Handle, cached_revision: str, deadline: float) -> Fetched:
        for number in range(1, self._limits.attempts + 1):
            try:
                return self._attempt(handle, have=cached_revision, timeout_s=max(deadline - self._now(), 0.0))
            except FetchError as error:
                failure = error.failure
            wait_s = delay_s(failure, number, self._limits.attempts)
            if wait_s is None or self._now() + wait_s >= deadline:
                break
            self._log.warning("fetch failed: %s (%s); next attempt in %g s", handle, failure.detail, wait_s)
            self._sleep(wait_s)
        raise HubError(explain(handle, failure), outage=failure.kind in OUTAGES)

    def _publish(self, handle: Handle, fetched: Fetched) -> Path:
        pinned = handle.at(fetched.revision)
        if fetched.files:  # none if the cached revision is still the current one
            folder = self._cache.link(pinned, fetched.files)
            try:
                read_preset_folder(folder, id_=handle.name, source=handle.hub, load_weights=True)
            except PresetError as error:
                shutil.rmtree(folder)
                reason = str(error).removeprefix(f"{folder}: ").replace(f"{folder}/", "")
                raise PresetError(f"{pinned}: {reason}") from error
            records = record_files(folder, fetched.files)
            fetched_at = datetime.now(UTC).isoformat(timespec="seconds")
            manifest = Manifest(str(pinned), fetched_at, fetched.client, records, fetched.listed)
            self._cache.publish(pinned, folder, manifest)
            self._log.info("preset fetched: %s, %.1f MB", pinned, manifest.size / 1e6)
        self._cache.remember(handle, fetched.revision)
        return self._cache.folder(pinned)


_SENTENCES: Final[Mapping[FailureKind, str]] = {
    FailureKind.NOT_FOUND: "not found on {hub}: {detail}",
    FailureKind.FORBIDDEN: (
        "access denied by {hub} ({detail}): the repository is private, gated or missing; accept its terms on its page, "
        "and set {token}"
    ),
    FailureKind.BUSY: "{hub} has received too many requests ({detail}): retry later, or set {token}",
    FailureKind.UNAVAILABLE: "{hub} cannot be reached or does not respond: {detail}",
    FailureKind.CORRUPT: "damaged file from {hub}: {detail}",
    FailureKind.REJECTED: "{detail}",
    FailureKind.CRASHED: "{detail}",
}


def explain(handle: Handle, failure: Failure) -> str:
    """Returns one line for the user.

    Example:
        >>> from electra_serve.presets.hubs.handle import parse_handle
        >>> explain(parse_handle("hf://org/repo"), Failure(FailureKind.NOT_FOUND, "HTTP 404"))
        'hf://org/repo: not found on the Hugging Face hub: HTTP 404'
    """
    sentence = _SENTENCES[failure.kind]
    reason = sentence.format(hub=HUB_NAMES[handle.hub], detail=failure.detail, token=TOKEN_HINTS[handle.hub])
    return f"{handle}: {reason}"
