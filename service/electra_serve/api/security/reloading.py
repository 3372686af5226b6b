"""What is read from files and read again when they change, without a restart.

Keys and certificates are renewed while the service runs. The files are looked at once a second, by whoever needs what
is in them: there is no timer and no thread. Changed files are taken once they have not been written to for
`SETTLE_S`: somebody may be in the middle of it. What is put in place by a rename or a symlink, as Kubernetes swaps a
Secret, is older than that and is taken at once.

Invariant: what was read last stays until all files are read whole and found good. Files that go missing or bad change
nothing, and are told of once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

import structlog

from electra_serve.errors import SettingsError

T = TypeVar("T")

LOOK_S: Final = 1.0
"""How long a look at the files counts."""
SETTLE_S: Final = 1.0

_Version: TypeAlias = tuple[tuple[int, ...], ...]
"""Of each file: device, inode, mode, size, and when it was last written to, in nanoseconds."""
_MISSING: Final[_Version] = ()


class ReloadingFile(Generic[T]):
    """What is in some files.

    Args:
        what: What it is, for the log.
        paths: The files.
        read: Reads and checks them all.
        log: Where it is told that they changed, or that they cannot be taken.
        now: Seconds since the epoch, as the file system counts them.

    Raises:
        SettingsError: As `read` does, the first time.
    """

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
        self._seen = self._version()  # before they are read: what changes meanwhile is read again
        self._current = read()
        self._looked_at = now()

    @property
    def current(self) -> T:
        """What the files held when they were last found good."""
        now = self._now()
        if abs(now - self._looked_at) >= LOOK_S:  # either way: clocks are set back
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
            self._log.info("read again", what=self._what)
        except SettingsError as error:
            self._log.error("cannot be read again; what was read last goes on", what=self._what, error=str(error))

    def _version(self) -> _Version:
        try:
            found = [path.stat() for path in self._paths]
        except OSError:
            return _MISSING
        return tuple((one.st_dev, one.st_ino, one.st_mode, one.st_size, one.st_mtime_ns) for one in found)
