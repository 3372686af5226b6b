"""One attempt at a fetch, in a process of its own, ended when it hangs, is late, or fetches too much."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from electra_serve.presets.hubs.cache import home_dir
from electra_serve.presets.hubs.failure import Failure, FailureKind, FetchError, one_line
from electra_serve.presets.hubs.files import STAGED
from electra_serve.presets.hubs.handle import Handle
from electra_serve.presets.hubs.progress import Progress

COMMAND: Final = (sys.executable, "-m", "electra_serve.presets.hubs.fetch")
POLL_S: Final = 0.1
END_S: Final = 5.0
"""How long an ended process may take to be gone."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an attempt brought.

    Attributes:
        revision: What the handle means now.
        client: The library and its version.
        files: The folder with all files; None where the revision was there already.
        names: What is in it.
    """

    revision: str
    client: str
    files: Path | None
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds on one attempt.

    Attributes:
        stall_timeout_s: Seconds without a new byte.
        max_bytes: Bytes in the staging folder.
    """

    stall_timeout_s: float
    max_bytes: int


class FetchProcess:
    """Runs `electra_serve.presets.hubs.fetch` and watches it.

    Args:
        limits: When to end it.
        environment: Its variables: the hubs' tokens, endpoints and proxies.
        progress: Is told how far it is.
        command: What to run.
        now: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        limits: FetchLimits,
        environment: Mapping[str, str],
        progress: Progress,
        *,
        command: Sequence[str] = COMMAND,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._environment = environment
        self._progress = progress
        self._command = command
        self._now = now

    def run(self, handle: Handle, staging: Path, *, have: str, timeout_s: float) -> Fetched:
        """Fetches `handle` into `staging`.

        Args:
            handle: What.
            staging: Ours alone for that long.
            have: A revision that need not be fetched; may be empty.
            timeout_s: Seconds for all of it.

        Raises:
            FetchError: It failed, or was ended.
        """
        log, report = staging / "log", staging / "report"
        with log.open("wb") as log_stream, report.open("wb") as report_stream:
            arguments = (str(handle), str(staging), have)
            with self._process(arguments, staging, report_stream, log_stream) as process:
                self._watch(process, handle, staging, timeout_s)
        return _read_report(report, log, staging)

    @contextmanager
    def _process(
        self, arguments: Sequence[str], staging: Path, report: IO[bytes], log: IO[bytes]
    ) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(  # noqa: S603  # our own command; the handle was parsed
            [*self._command, *arguments],
            env={**self._environment, **client_environment(staging, self._environment)},
            stdin=subprocess.PIPE,  # its end tells the process that we are gone
            stdout=report,
            stderr=log,
        )
        try:
            yield process
        finally:
            self._progress.end()
            process.kill()
            process.wait(END_S)
            with contextlib.suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]  # it is a pipe

    def _watch(self, process: subprocess.Popen[bytes], handle: Handle, staging: Path, timeout_s: float) -> None:
        deadline = self._now() + timeout_s
        seen, seen_at = -1, self._now()
        while process.poll() is None:
            done, now = _size(staging), self._now()
            if done != seen:
                seen, seen_at = done, now
                self._progress.update(str(handle), done, _total(staging / "report"))
            if done > self._limits.max_bytes:
                raise FetchError(Failure(FailureKind.REJECTED, f"at most {self._limits.max_bytes} bytes are fetched"))
            if now >= deadline:
                raise FetchError(Failure(FailureKind.UNAVAILABLE, f"not done within {timeout_s:.0f} s"))
            if now - seen_at >= self._limits.stall_timeout_s:
                stalled = f"no byte came for {self._limits.stall_timeout_s:g} s"
                raise FetchError(Failure(FailureKind.UNAVAILABLE, stalled))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)


def client_environment(staging: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep the clients quiet and in `staging`. Whatever was fetched elsewhere before is not taken."""
    return {
        "HOME": str(home_dir(environment) or staging),  # kagglehub cannot be imported without one
        "KAGGLEHUB_CACHE": str(staging / "kaggle"),
        "DISABLE_KAGGLE_CACHE": "true",
        "DISABLE_COLAB_CACHE": "true",
        "KAGGLEHUB_VERBOSITY": "error",
        "HF_HUB_CACHE": str(staging / "hf-cache"),
        "HF_XET_CACHE": str(staging / "hf-xet"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TQDM_DISABLE": "1",
    }


def _read_report(report: Path, log: Path, staging: Path) -> Fetched:
    """Returns the result that the process reported; raises the failure, or a crash if it reported nothing."""
    reported = {key: value for event in _events(report) for key, value in event.items()}
    failure = reported.get("failure")
    if isinstance(failure, dict):
        raise FetchError(Failure(**{**failure, "kind": FailureKind(failure["kind"])}))
    names = reported.get("files")
    if not isinstance(names, list):
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise FetchError(Failure(FailureKind.CRASHED, one_line(f"the client ended: {last}")))
    files = staging / STAGED if names else None
    return Fetched(str(reported["revision"]), str(reported["client"]), files, tuple(names))


def _total(report: Path) -> int | None:
    total = next((event["total_bytes"] for event in _events(report) if "total_bytes" in event), None)
    return total if isinstance(total, int) else None


def _events(report: Path) -> Iterator[dict[str, object]]:
    """The whole lines so far."""
    for line in report.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def _size(folder: Path) -> int:
    """Bytes in all files; those that go away meanwhile count as none."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            size += path.lstat().st_size
    return size
