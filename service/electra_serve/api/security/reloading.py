"""Values read from files, and read again when the files change: keys and certificates.

Each access checks the files at most once a second, without a timer or a thread. Changed files are read once they have
not been written to for `SETTLE_S`, since a write may still be in progress. Files that are swapped by rename or symlink,
as Kubernetes does for Secrets, are older than that and are read at once.

The last valid value stays in use until all files are valid again. Each invalid version is logged once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

import structlog

from electra_serve.errors import SettingsError

T = TypeVar("T")

LOOK_S: Final = 1.0  # seconds between two checks of the files
SETTLE_S: Final = 1.0

# Device, inode, mode, size and modification time in nanoseconds, for each file
_Version: TypeAlias = tuple[tuple[int, ...], ...]
_MISSING: Final[_Version] = ()


class ReloadingFile(Generic[T]):
    """Value of some files."""

    def __init__(
        self,
        what: str,
        paths: Sequence[Path],
        read: Callable[[], T],
        log: structlog.typing.FilteringBoundLogger,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._what = what
        self._paths = paths
        self._read = read
        self._log = log
        self._now = now
        self._seen = self._version()  # before the read, so that a change during it is noticed
        self._current = read()
        self._looked_at = now()

    @property
    def current(self) -> T:
        """Last valid value."""
        now = self._now()
        if abs(now - self._looked_at) >= LOOK_S:  # clocks can be set back
            self._looked_at = now
            self._look(now)
        return self._current

    def _look(self, now: float) -> None:
        version = self._version()
        if version == self._seen or any(0 <= now - written_ns / 1e9 < SETTLE_S for *_, written_ns in version):
            return
        self._seen = version
        try:
            self._current = self._read()
            self._log.info("files reloaded", what=self._what)
        except SettingsError as error:
            self._log.error("files not reloaded", what=self._what, error=str(error))

    def _version(self) -> _Version:
        try:
            found = [path.stat() for path in self._paths]
        except OSError:
            return _MISSING
        return tuple((one.st_dev, one.st_ino, one.st_mode, one.st_size, one.st_mtime_ns) for one in found)
