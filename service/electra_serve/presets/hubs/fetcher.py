"""From a handle to a whole, checked folder in the cache: attempts, back-off, check, publish."""

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
from electra_serve.presets.hubs.contents import check_content
from electra_serve.presets.hubs.failure import OUTAGES, Failure, FailureKind, FetchError
from electra_serve.presets.hubs.handle import Handle, Hub
from electra_serve.presets.hubs.manifest import Manifest, record_files
from electra_serve.presets.hubs.process import Fetched
from electra_serve.presets.hubs.retry import delay_s

TOKENS: Final[Mapping[Hub, str]] = {
    "kaggle": "KAGGLE_API_TOKEN, or ~/.kaggle/access_token",
    "hf": "HF_TOKEN, or log in with `hf auth login`",
}
"""How each client is given a token."""

PAGES: Final[Mapping[Hub, str]] = {"kaggle": "Kaggle", "hf": "the Hugging Face hub"}


class Attempt(Protocol):
    """Fetches once: `FetchProcess.run`."""

    def __call__(self, handle: Handle, staging: Path, *, have: str, timeout_s: float) -> Fetched:
        """See `FetchProcess.run`."""


class HubError(PresetError):
    """A preset cannot be fetched.

    Args:
        message: One line.
        outage: Whether that says nothing against a copy fetched earlier.
    """

    def __init__(self, message: str, *, outage: bool) -> None:
        super().__init__(message)
        self.outage = outage


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """Bounds on all attempts together.

    Attributes:
        timeout_s: Seconds, waiting for another process that fetches the same included.
        attempts: How many.
    """

    timeout_s: float
    attempts: int


class Fetcher:
    """Fetches presets into the cache.

    Args:
        cache: Where to.
        attempt: Fetches once.
        limits: When to give up.
        log: Where failed attempts are told.
        sleep: Waits so many seconds.
        now: Seconds of a clock that never goes back.
    """

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
        """Fetches what the handle means now.

        Returns:
            Its folder in the cache. Where it was there already, that is not verified.

        Raises:
            HubError: It cannot be had, or not in time.
            PresetError: What the hub has is no preset, or the cache cannot be used.
        """
        deadline = self._now() + self._limits.timeout_s
        with self._cache.staging(handle, self._limits.timeout_s) as staging:
            found = self._cache.find(handle)
            if handle.pinned and found is not None:
                return found  # another process has just fetched it
            have = found.name if found is not None else ""
            return self._publish(handle, self._fetch(handle, staging, have, deadline), staging)

    def _fetch(self, handle: Handle, staging: Path, have: str, deadline: float) -> Fetched:
        for attempt in range(1, self._limits.attempts + 1):
            try:
                fetched = self._attempt(handle, staging, have=have, timeout_s=max(deadline - self._now(), 0.0))
                _check(fetched)
            except FetchError as error:
                failure = error.failure
            else:
                return fetched
            if failure.kind not in OUTAGES:
                _empty(staging)  # what an outage cut off can be resumed; anything else starts anew
            wait_s = delay_s(failure, attempt, self._limits.attempts)
            if wait_s is None or self._now() + wait_s >= deadline:
                break
            self._log.warning("fetching %s failed (%s); again in %g s", handle, failure.detail, wait_s)
            self._sleep(wait_s)
        raise HubError(explain(handle, failure), outage=failure.kind in OUTAGES)

    def _publish(self, handle: Handle, fetched: Fetched, staging: Path) -> Path:
        pinned = handle.at(fetched.revision)
        if fetched.files is not None:
            try:
                read_preset_folder(fetched.files, id_=handle.name, source=handle.hub, load_weights=True)
            except PresetError as error:
                _empty(staging)
                reason = str(error).removeprefix(f"{fetched.files}: ").replace(f"{fetched.files}/", "")
                raise PresetError(f"{pinned}: {reason}") from error
            records = record_files(fetched.files, fetched.names)
            fetched_at = datetime.now(UTC).isoformat(timespec="seconds")
            self._cache.publish(pinned, fetched.files, Manifest(str(pinned), fetched_at, fetched.client, records))
            self._log.info("fetched %s: %.1f MB", pinned, sum(record.size for record in records.values()) / 1e6)
        self._cache.remember(handle, fetched.revision)
        _empty(staging)
        return self._cache.folder(pinned)


_SENTENCES: Final[Mapping[FailureKind, str]] = {
    FailureKind.NOT_FOUND: "{hub} must have it; {detail}",
    FailureKind.FORBIDDEN: (
        "{hub} gives it to nobody or not to you ({detail}): it is private, gated or not there; accept its terms on its "
        "page, and set {token}"
    ),
    FailureKind.BUSY: "{hub} has had too many requests ({detail}): try later, or set {token}",
    FailureKind.UNAVAILABLE: "{hub} cannot be reached or does not answer: {detail}",
    FailureKind.CORRUPT: "what came from {hub} is damaged: {detail}",
    FailureKind.REJECTED: "{detail}",
    FailureKind.CRASHED: "{detail}",
}


def explain(handle: Handle, failure: Failure) -> str:
    """One line for a person.

    Example:
        >>> from electra_serve.presets.hubs.handle import parse_handle
        >>> explain(parse_handle("hf://org/repo"), Failure(FailureKind.NOT_FOUND, "HTTP 404"))
        'hf://org/repo: the Hugging Face hub must have it; HTTP 404'
    """
    sentence = _SENTENCES[failure.kind]
    reason = sentence.format(hub=PAGES[handle.hub], detail=failure.detail, token=TOKENS[handle.hub])
    return f"{handle}: {reason}"


def _check(fetched: Fetched) -> None:
    """Refuses what is not a file of its kind, so that it is fetched again."""
    if fetched.files is None:
        return
    for name in fetched.names:
        try:
            check_content(fetched.files / name, name)
        except PresetError as error:
            raise FetchError(Failure(FailureKind.CORRUPT, str(error))) from error


def _empty(staging: Path) -> None:
    for path in staging.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
